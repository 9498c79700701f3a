import { randomBytes } from "node:crypto";
import type { WorkerConfig } from "@millrace/shared/config/worker-config.js";
import { StatisticsCounter } from "@millrace/shared/predictions/statistics.js";
import { StorageCounter } from "@millrace/shared/predictions/storage-counter.js";
import { checkRedis } from "@millrace/shared/redis/check-redis.js";
import { closeRedis, openRedis, watchRedis } from "@millrace/shared/redis/connect-redis.js";
import { showStore } from "@millrace/shared/redis/show-store.js";
import { StoreClock } from "@millrace/shared/redis/store-clock.js";
import { StoreMarker } from "@millrace/shared/redis/store-marker.js";
import { measureEventLoopLag } from "@millrace/shared/service/event-loop-lag.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { createReleasers } from "@millrace/shared/service/releasers.js";
import type { Tracing } from "@millrace/shared/service/tracing.js";
import { expireOverdue } from "./jobs/expire-overdue.js";
import { serveRedrives } from "./jobs/serve-redrives.js";
import { createLockLosses } from "./monitoring/lock-losses.js";
import { createWorkerMetrics } from "./monitoring/metrics.js";
import { startOperationsServer } from "./monitoring/operations-server.js";
import { reportBacklog } from "./monitoring/report-backlog.js";
import { drainWhenFull } from "./queue/completing-backend.js";
import { type RunningInference, startInference } from "./start-inference.js";
import { startDeliveries } from "./webhooks/serve-deliveries.js";

export interface RunningWorker {
  /** Port of its own endpoints; null when they are off. */
  port: number | null;
  /** Finishes runs within the grace and gives back the other jobs. May be called twice. */
  close(): Promise<void>;
}

/**
 * Starts a worker in its roles. Everything that it opened is closed in reverse order, also when the start fails.
 * Rejects with a ConfigError when there is nothing to serve, and with a RedisUnusableError when Redis is not usable.
 * `slotProgram` replaces the program of the slots, for tests and benches.
 */
export async function startWorker(
  config: WorkerConfig,
  log: Logger,
  { slotProgram }: { slotProgram?: string } = {},
): Promise<RunningWorker> {
  const releasers = createReleasers();
  try {
    const workerId = randomBytes(6).toString("hex");
    const metrics = createWorkerMetrics();
    const lockLosses = createLockLosses(metrics, log);
    const lag = measureEventLoopLag(metrics.register);
    releasers.add(() => lag.close());
    const redis = openRedis(config.redis, "patient", `millrace-worker-${workerId}`);
    releasers.add(() => closeRedis(redis));
    drainWhenFull(redis);
    const connection = watchRedis(redis, log);
    const clock = new StoreClock(redis, config.keyPrefix);
    releasers.add(() => clock.close());
    const marker = new StoreMarker(redis, config.keyPrefix, log);
    releasers.add(() => marker.close());
    showStore(metrics.register, clock, marker);
    const tracing = await openTracing(config, clock, log);
    if (tracing !== null) releasers.add(() => tracing.close());
    const { durability, timing } = config;
    const redisChecked = checkRedis(redis, timing.redisDeadlineMs, durability).then(async ({ warnings }) => {
      for (const warning of warnings) log.warn(`redis: ${warning}`);
      await clock.start();
      await marker.start();
    });
    // Awaited below; until then a failure of another part must not make this an unhandled rejection.
    redisChecked.catch(() => undefined);

    reportBacklog(metrics.register, redis, clock, workerId, config.keyPrefix);
    const delivers = config.roles.has("webhooks") && config.webhookSecrets.length > 0;
    let inference: RunningInference | null = null;
    let isStarted = false;
    const statistics = new StatisticsCounter(redis, config.keyPrefix, clock, log);
    releasers.add(() => statistics.close());
    const storage = new StorageCounter(redis, config.keyPrefix, config.resultTtlSeconds, clock, log);
    releasers.add(() => storage.close());
    const onStored = storage.add;
    // Its slots start while Redis is looked at.
    const starting = config.roles.has("inference")
      ? startInference({
          ...{ redis, redisChecked, workerId, config, clock, marker, metrics, statistics, onStored, log },
          ...{ slotProgram, tracing, lockLosses },
        })
      : null;
    releasers.add(async () => (await starting?.catch(() => null))?.close());
    starting?.catch(() => undefined);
    await redisChecked;
    // Open while models load, which may take long.
    const operations =
      config.port === "off"
        ? null
        : await startOperationsServer({
            ...{ port: config.port, host: config.host, metricsKey: config.metricsKey },
            register: metrics.register,
            log,
            ready: () => {
              const { ready = true, ...details } = inference?.state() ?? {};
              return {
                ready: ready && isStarted && !connection.away && marker.complaint === null && !releasers.closing,
                redis: connection.away ? "away" : "ok",
                store_swapped: marker.complaint,
                roles: [...config.roles],
                delivers_webhooks: delivers,
                ...details,
              };
            },
          });
    if (operations !== null) releasers.add(() => operations.close());
    inference = (await starting) ?? null;
    const { keyPrefix, resultTtlSeconds } = config;
    const expiring = expireOverdue({
      ...{ redis, workerId, keyPrefix, resultTtlSeconds, onStored, statistics, clock, log },
    });
    releasers.add(() => expiring.close());
    const redrives = serveRedrives({ redis, keyPrefix, metrics, lockLosses, timing, clock, marker, log });
    releasers.add(() => redrives.close());
    if (delivers) {
      const deliveries = await startDeliveries({ redis, config, clock, marker, metrics, lockLosses, log, tracing });
      releasers.add(() => deliveries.close());
    } else if (config.roles.has("webhooks")) log.info("webhooks are not delivered: WEBHOOK_SECRET is not set");

    isStarted = true;
    log.info("worker ready", { worker: workerId, roles: [...config.roles], slots: config.slots });
    return { port: operations?.port ?? null, close: releasers.close };
  } catch (fault) {
    await releasers.close();
    throw fault;
  }
}

async function openTracing({ tracesTo }: WorkerConfig, clock: StoreClock, log: Logger): Promise<Tracing | null> {
  if (tracesTo === undefined) return null;
  const { startTracing } = await import("@millrace/shared/service/tracing.js");
  return startTracing("millrace-worker", tracesTo, () => clock.preciseNow(), log);
}
