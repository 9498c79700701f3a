import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo, Socket } from "node:net";
import type { ApiConfig } from "@millrace/shared/config/api-config.js";
import { StatisticsCounter } from "@millrace/shared/predictions/statistics.js";
import { createStatisticsTally } from "@millrace/shared/predictions/statistics-tally.js";
import { checkRedis, keepFacts } from "@millrace/shared/redis/check-redis.js";
import { confirmedByRedis, confirmedByReplicas } from "@millrace/shared/redis/confirm-writes.js";
import { closeRedis, openRedis, openSubscriber, watchRedis, whenReady } from "@millrace/shared/redis/connect-redis.js";
import type { AcceptSettings } from "@millrace/shared/scripts/queue/accept.js";
import { measureEventLoopLag } from "@millrace/shared/service/event-loop-lag.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { createReleasers } from "@millrace/shared/service/releasers.js";
import { KeyRing } from "./access/key-ring.js";
import { acceptTogether } from "./admission/accept-together.js";
import { watchLoop } from "./admission/loop-watch.js";
import { RedisMemory } from "./admission/redis-memory.js";
import { createApp } from "./app.js";
import { hardenedOptions, hardenServer } from "./http/harden-server.js";
import { ModelDirectory } from "./models/model-directory.js";
import { registerBacklogMetrics } from "./monitoring/backlog-metrics.js";
import { registerBreakerMetrics } from "./monitoring/breaker-metrics.js";
import { registerDriftMetrics } from "./monitoring/drift-metrics.js";
import { createApiMetrics } from "./monitoring/metrics.js";
import { Notices } from "./predictions/notices.js";

const { version } = createRequire(import.meta.url)("../package.json") as { version: string };

export interface RunningApi {
  port: number;
  /** Answers what has begun, then closes. May be called twice. */
  close(): Promise<void>;
}

/**
 * Starts an API. What was opened is closed in reverse order, also when the start itself fails. Rejects with a
 * RedisUnusableError when Redis is not there or cannot keep what it is given.
 */
export async function startApi(config: ApiConfig, log: Logger): Promise<RunningApi> {
  const releasers = createReleasers();
  const { noticesRereadMs, redisCommandMs, redisDeadlineMs } = config.timing;
  try {
    const tracing =
      config.tracesTo === undefined
        ? null
        : (await import("@millrace/shared/service/tracing.js")).startTracing("millrace-api", config.tracesTo, log);
    if (tracing !== null) releasers.add(() => tracing.close());
    const apiId = randomBytes(6).toString("hex");
    const redis = openRedis(config.redis, "hasty", `millrace-api-${apiId}`, redisCommandMs);
    releasers.add(() => closeRedis(redis));
    const subscriber = openSubscriber(config.redis, `millrace-notices-${apiId}`);
    releasers.add(() => closeRedis(subscriber));
    watchRedis(redis, log);
    subscriber.on("error", () => undefined);

    const writer =
      config.durability === "replica"
        ? openRedis(config.redis, "hasty", `millrace-writes-${apiId}`, redisCommandMs)
        : null;
    if (writer !== null) {
      releasers.add(() => closeRedis(writer));
      writer.on("error", () => undefined);
      await whenReady(writer, redisDeadlineMs).catch(() => undefined);
    }
    const confirmed = writer === null ? confirmedByRedis(redis) : confirmedByReplicas(writer);

    const facts = await checkRedis(redis, redisDeadlineMs, config.durability);
    for (const warning of facts.warnings) log.warn(`redis: ${warning}`);
    keepFacts(redis, facts, redisDeadlineMs, config.durability, log);
    const directory = new ModelDirectory(redis, config.keyPrefix, log, config.timing.modelsRereadMs);
    await directory.start();
    releasers.add(() => directory.close());
    const notices = new Notices(subscriber, config.keyPrefix, apiId, noticesRereadMs);
    await notices.start();
    releasers.add(() => notices.close());

    const keyRing = new KeyRing({
      redis,
      subscriber,
      prefix: config.keyPrefix,
      log,
      fixed: config.apiKeys,
      file: config.apiKeysFile,
      inFile: config.apiKeysInFile,
    });
    releasers.add(() => keyRing.close());
    await keyRing.start();
    // What nobody asked for is not even loaded.
    const limited = Object.values(config.rateLimits).some((limit) => limit !== null);
    const limits = limited
      ? new (await import("./access/rate-limits.js")).RateLimits(redis, config.keyPrefix, config.rateLimits)
      : null;
    const crossOrigin =
      config.corsOrigins.length > 0 ? (await import("./http/cross-origin.js")).crossOrigin(config.corsOrigins) : null;

    const memory = new RedisMemory(redis, config.maxRedisMemoryPart);
    await memory.start();
    releasers.add(() => memory.close());
    const loop = watchLoop(config.timing.overloadLagMs);
    releasers.add(() => loop.close());

    const metrics = createApiMetrics();
    registerBreakerMetrics(metrics.register, directory);
    registerBacklogMetrics(metrics.register, redis, directory);
    registerDriftMetrics(metrics.register, redis, directory);
    const statistics = new StatisticsCounter(redis, config.keyPrefix, log);
    releasers.add(() => statistics.close());
    const lag = measureEventLoopLag(metrics.register);
    releasers.add(() => lag.close());

    const tally = createStatisticsTally(redis);
    releasers.add(() => tally.close());

    const acceptSettings: AcceptSettings = {
      limits: config.queueLimits,
      weightOf: (owner) => config.ownerWeights.get(owner) ?? 1,
      resultTtlMs: config.resultTtlSeconds * 1000,
    };
    const app = createApp({
      redis,
      facts,
      directory,
      notices,
      metrics,
      tally,
      statistics,
      log,
      keyPrefix: config.keyPrefix,
      version,
      keyRing,
      limits,
      memory,
      loop,
      maxBodyBytes: config.maxBodyBytes,
      maxBodyKeys: config.maxBodyKeys,
      bodyTimeoutMs: config.bodyTimeoutMs,
      crossOrigin,
      trustProxy: config.trustProxy,
      maxBatchRows: config.maxBatchRows,
      maxBatchBytes: config.maxBatchBytes,
      uploadKeepMs: config.batchUploadKeepMs,
      maxFileBytes: config.maxFileBytes,
      maxTensorBytes: config.maxTensorBytes,
      syncTimeoutMs: config.syncTimeoutMs,
      confirmed,
      writes: writer ?? redis,
      acceptSettings,
      accept: acceptTogether(confirmed, acceptSettings),
      resultTtlSeconds: config.resultTtlSeconds,
      webhooksSigned: config.webhooksSigned,
      webhookAllowances: config.webhookAllowances,
      tracing,
      stopping: () => releasers.closing,
      openRedis: () => {
        const connection = openRedis(config.redis, "patient", `millrace-queues-${apiId}`);
        connection.on("error", () => undefined);
        return connection;
      },
      onClose: releasers.add,
    });
    const server = createServer(hardenedOptions, app);
    hardenServer(server);
    // Clients open connections ahead, which are not idle to Node until their first request.
    const unused = new Set<Socket>();
    server.on("connection", (socket: Socket) => {
      unused.add(socket);
      socket.once("close", () => unused.delete(socket));
    });
    server.on("request", ({ socket }) => unused.delete(socket));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(config.port, config.host, () => {
        server.off("error", reject);
        resolve();
      });
    });
    releasers.add(async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      // Whoever waits for a result is answered with what it is now, instead of holding up the end.
      notices.close();
      // A client that keeps its connection would hold up the end, once it has its answer.
      const idle = setInterval(() => {
        server.closeIdleConnections();
        for (const socket of unused) socket.destroy();
      }, 50);
      const grace = setTimeout(() => server.closeAllConnections(), config.shutdownGraceMs);
      await closed;
      clearTimeout(grace);
      clearInterval(idle);
    });
    const { port } = server.address() as AddressInfo;
    log.info("api ready", { host: config.host, port, durability: facts.durability, models: directory.all().length });
    return { port, close: releasers.close };
  } catch (fault) {
    await releasers.close();
    throw fault;
  }
}
