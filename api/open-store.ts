import type { ApiConfig } from "@millrace/shared/config/api-config.js";
import { checkRedis, keepFacts, type RedisFacts } from "@millrace/shared/redis/check-redis.js";
import { type ConfirmedWrite, confirmedByRedis, confirmedByReplicas } from "@millrace/shared/redis/confirm-writes.js";
import {
  closeRedis,
  openRedis,
  openSubscriber,
  type RedisClient,
  watchRedis,
  whenReady,
} from "@millrace/shared/redis/connect-redis.js";
import { StoreClock } from "@millrace/shared/redis/store-clock.js";
import { StoreMarker } from "@millrace/shared/redis/store-marker.js";
import type { Logger } from "@millrace/shared/service/log.js";

/** The connections of an API to Redis. */
export interface Store {
  redis: RedisClient;
  subscriber: RedisClient;
  /** The connection that acceptances go over. */
  writes: RedisClient;
  /** Carries out what callers are told of as done. */
  confirmed: ConfirmedWrite;
  facts: RedisFacts;
  clock: StoreClock;
  marker: StoreMarker;
}

/**
 * Opens the connections and holds Redis against the durability that is promised. Each is handed to `onClose` when it is
 * opened. Rejects with a RedisUnusableError when Redis is not there or cannot keep what it is given.
 */
export async function openStore(
  config: ApiConfig,
  apiId: string,
  log: Logger,
  onClose: (release: () => void) => void,
): Promise<Store> {
  const { redisCommandMs, redisDeadlineMs } = config.timing;
  const redis = openRedis(config.redis, "fail-fast", `millrace-api-${apiId}`, redisCommandMs);
  onClose(() => closeRedis(redis));
  const subscriber = openSubscriber(config.redis, `millrace-notices-${apiId}`);
  onClose(() => closeRedis(subscriber));
  watchRedis(redis, log);
  subscriber.on("error", () => undefined);

  const writer =
    config.durability === "replica"
      ? openRedis(config.redis, "fail-fast", `millrace-writes-${apiId}`, redisCommandMs)
      : null;
  if (writer !== null) {
    onClose(() => closeRedis(writer));
    writer.on("error", () => undefined);
    await whenReady(writer, redisDeadlineMs).catch(() => undefined);
  }
  const confirmed = writer === null ? confirmedByRedis(redis) : confirmedByReplicas(writer);

  const facts = await checkRedis(redis, redisDeadlineMs, config.durability);
  for (const warning of facts.warnings) log.warn(`redis: ${warning}`);
  keepFacts(redis, facts, redisDeadlineMs, config.durability, log);
  const clock = new StoreClock(redis, config.keyPrefix);
  onClose(() => clock.close());
  await clock.start();
  const marker = new StoreMarker(redis, config.keyPrefix, log);
  onClose(() => marker.close());
  await marker.start();
  return { clock, marker, redis, subscriber, writes: writer ?? redis, confirmed, facts };
}
