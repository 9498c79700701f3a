import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import type { ApiConfig } from "@millrace/shared/config/api-config.js";
import { registerBacklogMetrics } from "@millrace/shared/monitoring/backlog-metrics.js";
import { StatisticsCounter } from "@millrace/shared/predictions/statistics.js";
import { createStatisticsTally } from "@millrace/shared/predictions/statistics-tally.js";
import { type OnStored, StorageCounter } from "@millrace/shared/predictions/storage-counter.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { showStore } from "@millrace/shared/redis/show-store.js";
import { type AcceptSettings, acceptTogether, type QueueLimits } from "@millrace/shared/scripts/queue/accept.js";
import { auditBegins, auditEnds } from "@millrace/shared/service/audit-chain.js";
import { measureEventLoopLag } from "@millrace/shared/service/event-loop-lag.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { createReleasers, type Releasers } from "@millrace/shared/service/releasers.js";
import type { Tracing } from "@millrace/shared/service/tracing.js";
import { KeyRing } from "./access/key-ring.js";
import type { RateLimits } from "./access/rate-limits.js";
import { watchLoop } from "./admission/loop-watch.js";
import { OwnerStorage } from "./admission/owner-storage.js";
import { RedisMemory } from "./admission/redis-memory.js";
import { createApp } from "./app.js";
import { crossOrigin } from "./http/security-headers.js";
import { serve } from "./http/serve.js";
import { ModelDirectory } from "./models/model-directory.js";
import { type ApiMetrics, createApiMetrics } from "./monitoring/metrics.js";
import { registerBreakerMetrics, registerDriftMetrics } from "./monitoring/model-metrics.js";
import { openStore, type Store } from "./open-store.js";
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
  try {
    const apiId = randomBytes(6).toString("hex");
    const audit = { audit: true, api: apiId };
    log.info(auditBegins, { ...audit, version });
    // What comes last is closed first.
    releasers.add(async () => void log.info(auditEnds, audit));
    const store = await openStore(config, apiId, log, releasers.add);
    const tracing = await openTracing(config, store, log, releasers);
    const parts = await startParts(config, apiId, store, log, releasers);
    const app = createApp({
      ...config,
      uploadKeepMs: config.batchUploadKeepMs,
      ...store,
      ...parts,
      log,
      version,
      tracing,
      crossOrigin: config.corsOrigins.length > 0 ? await crossOrigin(config.corsOrigins) : null,
      stopping: () => releasers.closing,
      openRedis: () => openQueueConnection(config, apiId),
      onClose: releasers.add,
    });
    // Waits are answered with the state of the moment, instead of holding up the end.
    const onClosing = () => parts.notices.close();
    const { host, port, shutdownGraceMs } = config;
    const server = await serve(app, { host, port, shutdownGraceMs, onClosing });
    releasers.add(() => server.close());
    const { durability } = store.facts;
    const models = parts.directory.all().length;
    log.info("api ready", { host, port: server.port, durability, models });
    return { port: server.port, close: releasers.close };
  } catch (fault) {
    await releasers.close();
    throw fault;
  }
}

async function openTracing(
  { tracesTo }: ApiConfig,
  { clock }: Store,
  log: Logger,
  releasers: Releasers,
): Promise<Tracing | null> {
  if (tracesTo === undefined) return null;
  const { startTracing } = await import("@millrace/shared/service/tracing.js");
  const tracing = startTracing("millrace-api", tracesTo, () => clock.preciseNow(), log);
  releasers.add(() => tracing.close());
  return tracing;
}

/** The parts that use the store: each is started before the next, and closed in reverse order. */
async function startParts(config: ApiConfig, apiId: string, store: Store, log: Logger, releasers: Releasers) {
  const { clock, confirmed, redis, subscriber } = store;
  const prefix = config.keyPrefix;
  const directory = new ModelDirectory(redis, prefix, clock, log, config.timing.modelsRereadMs);
  await directory.start();
  releasers.add(() => directory.close());
  const notices = new Notices(subscriber, prefix, apiId, clock, config.timing.noticesRereadMs);
  await notices.start();
  releasers.add(() => notices.close());

  const { apiKeys: fixed, apiKeysFile: file, apiKeysInFile: inFile } = config;
  const keyRing = new KeyRing({ redis, subscriber, prefix, clock, log, fixed, file, inFile });
  releasers.add(() => keyRing.close());
  await keyRing.start();
  const limits = await openLimits(config, redis);

  const memory = new RedisMemory(redis, config.maxRedisMemoryPart);
  await memory.start();
  releasers.add(() => memory.close());
  const loop = watchLoop(config.timing.overloadLagMs);
  releasers.add(() => loop.close());

  const metrics = openMetrics(store, directory, config.queueLimits, releasers);
  const statistics = new StatisticsCounter(redis, prefix, clock, log);
  releasers.add(() => statistics.close());
  const { onStored, storage } = openStorage(config, store, memory, directory, log, releasers);
  const tally = createStatisticsTally(redis, clock);
  releasers.add(() => tally.close());

  const acceptSettings: AcceptSettings = {
    limits: config.queueLimits,
    weightOf: (owner) => config.ownerWeights.get(owner) ?? 1,
    resultTtlMs: config.resultTtlSeconds * 1000,
  };
  const accept = acceptTogether(confirmed, acceptSettings, clock);
  const work = { storage, onStored, metrics, statistics, tally, acceptSettings, accept };
  return { directory, notices, keyRing, limits, memory, loop, ...work };
}

/** What owners have in Redis: watched, and counted. */
function openStorage(
  { keyPrefix, queueLimits, resultTtlSeconds }: ApiConfig,
  { clock, redis }: Store,
  memory: RedisMemory,
  directory: ModelDirectory,
  log: Logger,
  releasers: Releasers,
): { storage: OwnerStorage; onStored: OnStored } {
  const counter = new StorageCounter(redis, keyPrefix, resultTtlSeconds, clock, log);
  releasers.add(() => counter.close());
  const { ownerPart } = queueLimits;
  const storage = new OwnerStorage({ redis, memory, directory, keyPrefix, resultTtlSeconds, ownerPart, clock, log });
  releasers.add(() => storage.close());
  return { storage, onStored: counter.add };
}

async function openLimits({ keyPrefix, rateLimits }: ApiConfig, redis: RedisClient): Promise<RateLimits | null> {
  if (Object.values(rateLimits).every((limit) => limit === null)) return null;
  const { RateLimits } = await import("./access/rate-limits.js");
  return new RateLimits(redis, keyPrefix, rateLimits);
}

function openMetrics(
  { clock, marker, redis }: Store,
  directory: ModelDirectory,
  limits: QueueLimits,
  releasers: Releasers,
): ApiMetrics {
  const metrics = createApiMetrics();
  showStore(metrics.register, clock, marker);
  registerBreakerMetrics(metrics.register, directory);
  registerBacklogMetrics(metrics.register, redis, clock, { limits, models: async () => directory.all() });
  registerDriftMetrics(metrics.register, redis, directory, clock);
  const lag = measureEventLoopLag(metrics.register);
  releasers.add(() => lag.close());
  return metrics;
}

/** The connection of the queue page, which waits for Redis. */
function openQueueConnection(config: ApiConfig, apiId: string): RedisClient {
  const connection = openRedis(config.redis, "patient", `millrace-queues-${apiId}`);
  connection.on("error", () => undefined);
  return connection;
}
