import { randomBytes } from "node:crypto";
import { checkRedis } from "@millrace/shared/check-redis.js";
import { ConfigError, type WorkerConfig } from "@millrace/shared/config.js";
import { closeRedis, openRedis } from "@millrace/shared/connect-redis.js";
import { measureEventLoopLag } from "@millrace/shared/event-loop-lag.js";
import type { Logger } from "@millrace/shared/log.js";
import { Dispatcher } from "./dispatcher.js";
import { loadVersions } from "./load-versions.js";
import { createWorkerMetrics } from "./metrics.js";
import { scanRepository } from "./model-repository.js";
import { startOperationsServer } from "./operations-server.js";
import { startServing } from "./serve-model.js";
import { SlotPool } from "./slot-pool.js";

const redisDeadlineMs = 30_000;

export interface RunningWorker {
  /** Where its own endpoints listen; null when they are off. */
  port: number | null;
  slotPids: number[];
  /** Finishes what runs within the grace, gives back what has not begun. May be called twice. */
  close(): Promise<void>;
}

/**
 * Starts a worker: slots, models, queues. What was opened is closed in reverse order, also when the start itself fails.
 * Rejects with a ConfigError when there is no model that it can serve, with a RedisUnusableError when Redis is not there.
 */
export async function startWorker(config: WorkerConfig, log: Logger): Promise<RunningWorker> {
  const releasers: (() => Promise<void> | void)[] = [];
  let closing: Promise<void> | null = null;
  const close = () => {
    closing ??= (async () => {
      for (const release of releasers.reverse()) await release();
    })();
    return closing;
  };
  try {
    const workerId = randomBytes(6).toString("hex");
    const metrics = createWorkerMetrics();
    const lag = measureEventLoopLag(metrics.register);
    releasers.push(() => lag.close());
    const pool = new SlotPool({
      slots: config.slots,
      environment: config.slotEnvironment,
      log,
      onIdle: () => dispatcher.pump(),
      onDeath: () => metrics.slotDeaths.inc(),
    });
    releasers.push(() => pool.close());
    const dispatcher: Dispatcher = new Dispatcher(pool, (lane, _works, rows) => {
      metrics.batchRows.observe({ model: lane.model }, rows);
    });

    const redis = openRedis(config.redis, "patient", `millrace-worker-${workerId}`);
    releasers.push(() => closeRedis(redis));
    let redisTrouble = false;
    redis.on("error", (error: Error) => {
      if (!redisTrouble) log.error("redis connection lost, waiting for it", { error: error.message });
      redisTrouble = true;
    });
    redis.on("ready", () => {
      if (redisTrouble) log.info("redis connection is back");
      redisTrouble = false;
    });

    const scan = scanRepository(config.modelsDir, config.modelGlobs).catch((fault: NodeJS.ErrnoException) => {
      throw new ConfigError([`MODELS_DIR cannot be read (${fault.code})`]);
    });
    const [{ found, bad }, facts] = await Promise.all([scan, checkRedis(redis, redisDeadlineMs, config.durability)]);
    for (const warning of facts.warnings) log.warn(`redis: ${warning}`);

    const { loaded, refused } = await loadVersions({ found, bad, pool, redis, keyPrefix: config.keyPrefix, workerId });
    for (const { model, version, reason } of refused) {
      log.error("model cannot be served", { model, version, reason });
      metrics.modelLoaded.set({ model, version: version ?? "" }, 0);
    }
    if (loaded.length === 0)
      throw new ConfigError([`MODELS_DIR holds no model that can be served (${refused.length} refused)`]);

    const serving = startServing({
      loaded,
      redis,
      dispatcher,
      metrics,
      log,
      config,
      workerId,
      endSlots: () => void pool.close(),
    });
    releasers.push(() => serving.close());
    const operations =
      config.port === "off"
        ? null
        : await startOperationsServer({
            port: config.port,
            register: metrics.register,
            log,
            ready: () => {
              const fetching = serving.lastBeatAgeMs() < 10_000;
              return {
                ready: fetching && !redisTrouble && pool.alive > 0 && closing === null,
                redis: fetching && !redisTrouble ? "ok" : "away",
                slots: { alive: pool.alive, busy: pool.busy, configured: config.slots },
                models: loaded.map(({ model, version, digest }) => ({ model, version, digest })),
                refused: refused.map(({ model, version, reason }) => ({ model, version, reason })),
              };
            },
          });
    if (operations !== null) releasers.push(() => operations.close());
    log.info("worker ready", {
      models: loaded.map(({ model, version }) => `${model}/${version}`),
      slots: config.slots,
      worker: workerId,
    });
    return {
      port: operations?.port ?? null,
      get slotPids() {
        return pool.pids;
      },
      close,
    };
  } catch (fault) {
    await close();
    throw fault;
  }
}
