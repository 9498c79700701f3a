import { randomBytes } from "node:crypto";
import type { WorkerConfig } from "@millrace/shared/config/worker-config.js";
import { StatisticsCounter } from "@millrace/shared/predictions/statistics.js";
import { checkRedis } from "@millrace/shared/redis/check-redis.js";
import { closeRedis, openRedis, watchRedis } from "@millrace/shared/redis/connect-redis.js";
import { measureEventLoopLag } from "@millrace/shared/service/event-loop-lag.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { createReleasers } from "@millrace/shared/service/releasers.js";
import { expireOverdue } from "./jobs/expire-overdue.js";
import { serveRedrives } from "./jobs/serve-redrives.js";
import { createWorkerMetrics } from "./monitoring/metrics.js";
import { startOperationsServer } from "./monitoring/operations-server.js";
import { drainWhenFull } from "./queue/completing-backend.js";
import { startInference } from "./start-inference.js";
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
    const tracing =
      config.tracesTo === undefined
        ? null
        : (await import("@millrace/shared/service/tracing.js")).startTracing("millrace-worker", config.tracesTo, log);
    if (tracing !== null) releasers.add(() => tracing.close());
    const workerId = randomBytes(6).toString("hex");
    const metrics = createWorkerMetrics();
    const lag = measureEventLoopLag(metrics.register);
    releasers.add(() => lag.close());
    const redis = openRedis(config.redis, "patient", `millrace-worker-${workerId}`);
    releasers.add(() => closeRedis(redis));
    drainWhenFull(redis);
    const connection = watchRedis(redis, log);
    const redisChecked = checkRedis(redis, config.timing.redisDeadlineMs, config.durability).then(({ warnings }) => {
      for (const warning of warnings) log.warn(`redis: ${warning}`);
    });
    // Awaited below; until then a failure of another part must not make this an unhandled rejection.
    redisChecked.catch(() => undefined);

    const statistics = new StatisticsCounter(redis, config.keyPrefix, log);
    releasers.add(() => statistics.close());
    const inference = config.roles.has("inference")
      ? await startInference({ redis, redisChecked, workerId, config, metrics, statistics, log, slotProgram, tracing })
      : null;
    if (inference !== null) releasers.add(() => inference.close());
    await redisChecked;
    const { keyPrefix, resultTtlSeconds } = config;
    const expiring = expireOverdue({ redis, workerId, keyPrefix, resultTtlSeconds, statistics, log });
    releasers.add(() => expiring.close());
    const redrives = serveRedrives({ redis, keyPrefix, metrics, timing: config.timing, log });
    releasers.add(() => redrives.close());
    const delivers = config.roles.has("webhooks") && config.webhookSecrets.length > 0;
    if (delivers) {
      const deliveries = await startDeliveries({ redis, config, metrics, log, tracing });
      releasers.add(() => deliveries.close());
    } else if (config.roles.has("webhooks")) log.info("webhooks are not delivered: WEBHOOK_SECRET is not set");

    const operations =
      config.port === "off"
        ? null
        : await startOperationsServer({
            port: config.port,
            register: metrics.register,
            log,
            ready: () => {
              const { ready = true, ...details } = inference?.state() ?? {};
              return {
                ready: ready && !connection.away && !releasers.closing,
                redis: connection.away ? "away" : "ok",
                roles: [...config.roles],
                delivers_webhooks: delivers,
                ...details,
              };
            },
          });
    if (operations !== null) releasers.add(() => operations.close());
    log.info("worker ready", { worker: workerId, roles: [...config.roles], slots: config.slots });
    return { port: operations?.port ?? null, close: releasers.close };
  } catch (fault) {
    await releasers.close();
    throw fault;
  }
}
