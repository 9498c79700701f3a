import { createHash } from "node:crypto";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import type { Deployment } from "./deployment.js";
import { inRoot } from "./paths.js";
import { childrenOf, type Watched } from "./process-usage.js";
import type { OnClose } from "./releasers.js";
import { type BenchProcess, startProcess } from "./start-process.js";
import type { BenchRedis } from "./start-redis.js";

const apiKey = "bench-key";
const keyPrefix = "bench-ours";
const shippedModels = inRoot("models");

export interface Millrace extends Deployment {
  readonly api: BenchProcess;
  readonly workers: BenchProcess[];
  /** Starts one more worker; resolves when it is ready. */
  startWorker(): Promise<BenchProcess>;
  /** Stops every worker and waits for their ends. */
  stopWorkers(): Promise<void>;
}

export interface MillraceOptions {
  model: string;
  modelsDir?: string;
  slots?: number;
  /** Another worker program than the product's. */
  workerProgram?: string;
  /** Settings that differ from the defaults. */
  settings?: Record<string, string>;
}

/** Starts workers and API as `millrace start` does, with default settings. */
export async function startMillrace(
  redis: BenchRedis,
  {
    model,
    modelsDir = shippedModels,
    slots = 2,
    settings = {},
    workerProgram = inRoot("workers/dist/main.js"),
  }: MillraceOptions,
  onClose: OnClose,
): Promise<Millrace> {
  const env = {
    PATH: process.env.PATH,
    LOG_LEVEL: process.env.LOG_LEVEL,
    REDIS_URL: redis.url,
    REDIS_KEY_PREFIX: keyPrefix,
    MODELS_DIR: modelsDir,
    // Figures of intrusion detection must not depend on other shipped models.
    ...(modelsDir === shippedModels && { WORKER_MODELS: "intrusion-*" }),
    WORKER_SLOTS: String(slots),
    WORKER_PORT: "0",
    PORT: "0",
    API_KEYS: `bench:${createHash("sha256").update(apiKey).digest("hex")}:predict+admin`,
    ...settings,
  };
  const workers: BenchProcess[] = [];
  const startWorker = async () => {
    const worker = await startProcess("worker", "worker", workerProgram, env);
    workers.push(worker);
    return worker;
  };
  const stopWorkers = async () => {
    await Promise.all(workers.splice(0).map((worker) => worker.stop()));
  };
  onClose(stopWorkers);
  await startWorker();
  const api = await startProcess("api", "api", inRoot("api/dist/main.js"), env);
  onClose(() => api.stop());
  return {
    name: "ours",
    port: api.port,
    path: `/v1/models/${model}/predictions`,
    headers: { authorization: `Bearer ${apiKey}` },
    redis,
    queue: modelKeys(keyPrefix, model).queue,
    processes: () => [
      { name: "api", pid: api.pid },
      ...workers.flatMap((worker): Watched[] => [
        { name: "worker", pid: worker.pid },
        ...childrenOf(worker.pid).map((pid) => ({ name: "slots", pid })),
      ]),
      { name: "redis", pid: redis.pid },
    ],
    api,
    workers,
    startWorker,
    stopWorkers,
  };
}

/** The keys of one model in a Millrace started by this bench. */
export const benchKeys = (model: string) => modelKeys(keyPrefix, model);

/**
 * The sum over workers of a metric's samples with all of `labels`. The scrape resets metrics that reset on a scrape.
 */
export async function workerMetric(
  workers: readonly { port: number }[],
  name: string,
  ...labels: string[]
): Promise<number> {
  let sum = 0;
  for (const { port } of workers) {
    const response = await fetch(`http://127.0.0.1:${port}/metrics`);
    for (const line of (await response.text()).split("\n")) {
      if (!line.startsWith(`${name}{`) || !labels.every((label) => line.includes(label))) continue;
      sum += Number(line.slice(line.lastIndexOf(" ") + 1));
    }
  }
  return sum;
}
