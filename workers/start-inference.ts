import { ConfigError, type WorkerConfig } from "@millrace/shared/config.js";
import { closeRedis, openRedis, type RedisClient } from "@millrace/shared/connect-redis.js";
import type { Logger } from "@millrace/shared/log.js";
import type { Tracing } from "@millrace/shared/tracing.js";
import { createByteBudget } from "./byte-budget.js";
import { hearCancellations } from "./cancellations.js";
import { Dispatcher } from "./dispatcher.js";
import { loadVersions } from "./load-versions.js";
import type { WorkerMetrics } from "./metrics.js";
import { scanRepository } from "./model-repository.js";
import { startServing } from "./serve-model.js";
import { SlotPool } from "./slot-pool.js";

/** Large inputs that a worker holds at a time; more of them wait for their turn, as jobs that it has taken. */
const blobMemoryBytes = 256 * 1024 * 1024;

export interface RunningInference {
  /** Whether it takes jobs, and what it has to say of slots and models. */
  state(): { ready: boolean; [detail: string]: unknown };
  /** Lets what runs end within the grace and gives back the rest. May be called twice. */
  close(): Promise<void>;
}

/**
 * Starts the inference role: slots first, because they take longest, then models, then queues. Rejects with a ConfigError
 * when there is no model that it can serve.
 */
export async function startInference(options: {
  redis: RedisClient;
  /** Resolves when Redis has been looked at. */
  redisChecked: Promise<unknown>;
  workerId: string;
  config: WorkerConfig;
  metrics: WorkerMetrics;
  log: Logger;
  slotProgram?: string | undefined;
  tracing: Tracing | null;
}): Promise<RunningInference> {
  const { config, log, metrics, redis, tracing, workerId } = options;
  const pool: SlotPool = new SlotPool({
    slots: config.slots,
    environment: config.slotEnvironment,
    log,
    ...(options.slotProgram !== undefined && { program: options.slotProgram }),
    onIdle: () => dispatcher.pump(),
    onDeath: () => metrics.slotDeaths.inc(),
  });
  const dispatcher: Dispatcher = new Dispatcher(pool, (lane, _works, rows) => {
    metrics.batchRows.observe({ model: lane.model }, rows);
  });
  metrics.tellSlots(() => ({ configured: config.slots, alive: pool.alive, busy: pool.busy }));
  const subscriber = openRedis(config.redis, "patient", `millrace-cancels-${workerId}`);
  subscriber.on("error", () => undefined);
  const closeParts = async () => {
    closeRedis(subscriber);
    await pool.close();
  };
  try {
    const scan = scanRepository(config.modelsDir, config.modelGlobs).catch((fault: NodeJS.ErrnoException) => {
      throw new ConfigError([`MODELS_DIR cannot be read (${fault.code})`]);
    });
    const [{ bad, found }] = await Promise.all([scan, options.redisChecked]);
    const { loaded, refused } = await loadVersions({ found, bad, pool, redis, keyPrefix: config.keyPrefix, workerId });
    for (const { model, version, reason } of refused) {
      log.error("model cannot be served", { model, version, reason });
      metrics.modelLoaded.set({ model, version: version ?? "" }, 0);
    }
    if (loaded.length === 0) {
      throw new ConfigError([
        `MODELS_DIR holds no model that can be served (${refused.length} refused)`,
        ...refused.map(({ model, reason, version }) => `${model}/${version ?? "model.json"}: ${reason}`),
      ]);
    }
    await hearCancellations(subscriber, config.keyPrefix, (id) => dispatcher.cancel(id));
    const endSlots = () => void pool.close();
    const blobMemory = createByteBudget(blobMemoryBytes);
    const serving = startServing({
      loaded,
      redis,
      dispatcher,
      metrics,
      log,
      config,
      workerId,
      blobMemory,
      endSlots,
      tracing,
    });
    let closing: Promise<void> | null = null;
    return {
      state: () => ({
        ready: serving.lastBeatAgeMs() < 10_000 && pool.alive > 0 && closing === null,
        slots: { alive: pool.alive, busy: pool.busy, configured: config.slots },
        models: loaded.map(({ digest, model, version }) => ({ model, version, digest })),
        refused: refused.map(({ model, reason, version }) => ({ model, version, reason })),
      }),
      close: () => {
        closing ??= serving.close().finally(closeParts);
        return closing;
      },
    };
  } catch (fault) {
    await closeParts();
    throw fault;
  }
}
