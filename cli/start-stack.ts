import { createHash, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { secretSettings, withSecretFiles } from "@millrace/shared/config/secret-files.js";
import { createReleasers } from "@millrace/shared/service/releasers.js";
import { keepSecret, writePrivate } from "./keep-secret.js";
import { apiUrl, findListenPort, type ListenPort } from "./listen-port.js";
import { findRedis } from "./redis-server.js";
import { type LogLine, type ServiceProcess, spawnService } from "./service-process.js";

const shippedModels = fileURLToPath(new URL("../../models", import.meta.url));
const apiStarts = 5;
const graceWithoutRedisMs = 2000;

type Environment = Record<string, string | undefined>;

export interface Stack {
  apiUrl: string;
  workerPort: number;
  /** A key with the scopes predict and admin; null where API_KEYS or API_KEYS_FILE is set. */
  apiKey: string | null;
  redisUrl: string;
  keyPrefix: string;
  /** The secret of webhooks; null where WEBHOOK_SECRET is set. */
  webhookSecret: string | null;
  /** Rejects when a process ends unexpectedly. */
  broken: Promise<never>;
  /** Ends API, worker and a private Redis, in that order. May be called twice. */
  close(): Promise<void>;
}

/**
 * Finds or starts Redis, then one API and one worker with every model; if a part fails, ends the started ones. What is
 * kept from start to start is in `dataDir`, which this process has locked. Where `PORT` is not set, the API takes the
 * next free one.
 */
export async function startStack(
  environment: Environment,
  dataDir: string,
  say: (line: string) => void,
): Promise<Stack> {
  const { env, problems } = withSecretFiles(environment);
  if (problems.length > 0) throw new Error(problems.join("\n"));
  // The contents of these files are passed on as variables.
  for (const name of secretSettings) delete env[`${name}_FILE`];
  // Its lines are not shown, but they tell when a service is ready.
  if (env.LOG_LEVEL === "error" || env.LOG_LEVEL === "warn") env.LOG_LEVEL = "info";
  const releasers = createReleasers();
  try {
    // Before anything is started, so that a taken port is told at once.
    const listen = await findListenPort(env);
    const redis = await findRedis({ redisUrl: env.REDIS_URL, path: env.PATH, dataDir: join(dataDir, "redis"), say });
    releasers.add(() => redis.close());
    // Without it nothing can be given back, so nothing is waited for.
    let graceMs: number | undefined;
    void redis.exited.then(() => {
      graceMs = graceWithoutRedisMs;
    });
    const key = env.API_KEYS || env.API_KEYS_FILE ? null : await keepKey(dataDir);
    const webhookSecret = env.WEBHOOK_SECRET ? null : await keepWebhookSecret(dataDir);
    const common = { ...env, REDIS_URL: redis.url, ...(webhookSecret !== null && { WEBHOOK_SECRET: webhookSecret }) };
    const lines = createLineFilter(environment.LOG_LEVEL, say);
    const worker = spawnService("worker", { ...common, MODELS_DIR: env.MODELS_DIR || shippedModels }, (line) =>
      lines.show("worker", line),
    );
    releasers.add(() => worker.stop(graceMs));
    let api: ServiceProcess | null = null;
    releasers.add(() => api?.stop(graceMs));
    const startApi = async ({ chosen, port }: ListenPort, startsLeft: number): Promise<number> => {
      const own = { ...common, PORT: port, ...(key !== null && { API_KEYS_FILE: key.file }) };
      api = spawnService("api", own, (line) => lines.show("api", line));
      try {
        return await api.ready;
      } catch (fault) {
        // Another process may have taken the port since it was found free.
        if (!chosen || startsLeft === 0 || !(fault as Error).message.includes(`PORT ${port} is taken`)) throw fault;
        return startApi(await findListenPort(env), startsLeft - 1);
      }
    };
    const [workerPort, port] = await Promise.all([worker.ready, startApi(listen, apiStarts - 1)]);
    lines.allReady();
    if (listen.chosen && port !== 3000) say(`Port 3000 is taken: the API listens on ${port}. PORT sets another.`);
    const broken = Promise.race([
      (api as ServiceProcess | null)?.exited.then((how) => `the API ended (${how})`),
      worker.exited.then((how) => `the worker ended (${how})`),
      redis.exited.then(() => `Redis ended; see ${join(dataDir, "redis", "redis.log")}`),
    ]).then((what) => {
      throw new Error(`Stopping, because ${what}.`);
    });
    broken.catch(() => undefined);
    return {
      apiUrl: apiUrl(env.HOST, port),
      workerPort,
      apiKey: key?.key ?? null,
      redisUrl: redis.url,
      keyPrefix: env.REDIS_KEY_PREFIX || "mr",
      webhookSecret,
      broken,
      close: releasers.close,
    };
  } catch (fault) {
    await releasers.close();
    throw fault;
  }
}

/** Shows the warnings and faults of services, by the level that the user set. */
function createLineFilter(level: string | undefined, say: (line: string) => void) {
  const shown = level === "error" ? ["error"] : ["error", "warn"];
  let ready = false;
  return {
    show(kind: string, line: LogLine) {
      if (!shown.includes(String(line.level))) return;
      // What ends a start is told with the fault, and the refusals with the models.
      if (!ready && (line.service === undefined || line.message === "model cannot be served")) return;
      say(`[${kind}] ${describeLine(line)}`);
    },
    allReady() {
      ready = true;
    },
  };
}

const causeFields = ["model", "version", "reason", "error"];

/** A line of a service's log for people, on one line: its message, and the fields that tell the cause. */
export function describeLine(line: LogLine): string {
  const fields = causeFields.flatMap((name) => {
    const value = line[name];
    const text = (value as { message?: string } | null | undefined)?.message ?? value;
    return text === undefined || text === null ? [] : [`${name}: ${String(text)}`];
  });
  return [String(line.message), ...fields].join(", ").replaceAll(/\s+/g, " ");
}

/** The webhook secret of this installation. Made at the first start and kept, since receivers know it. */
const keepWebhookSecret = (dataDir: string): Promise<string> =>
  keepSecret(
    join(dataDir, "webhook-secret"),
    /^whsec_[A-Za-z0-9+/]{32}$/,
    () => `whsec_${randomBytes(24).toString("base64")}`,
  );

/** The key of this installation, and the file that tells it to an API. Kept, so that yesterday's scripts still work. */
async function keepKey(dataDir: string): Promise<{ key: string; file: string }> {
  const make = () => `mr_${randomBytes(24).toString("base64url")}`;
  const key = await keepSecret(join(dataDir, "api-key"), /^mr_[A-Za-z0-9_-]{32}$/, make);
  const hash = createHash("sha256").update(key).digest("hex");
  const file = join(dataDir, "api-keys");
  await writePrivate(file, `local:${hash}:predict+admin\n`);
  return { key, file };
}

/** A sample of a shipped model, from its manifest. */
export async function sampleOf(
  model: string,
  index: number,
): Promise<{ name: string; input: unknown; expected: unknown }> {
  const manifest = JSON.parse(await readFile(join(shippedModels, model, "model.json"), "utf8"));
  const sample = manifest.samples[index % manifest.samples.length];
  const features = manifest.input.features as (string | { name: string })[];
  const names = features.map((feature) => (typeof feature === "string" ? feature : feature.name));
  return { name: sample.name, input: names.map((name) => sample.input[name]), expected: sample.expected };
}
