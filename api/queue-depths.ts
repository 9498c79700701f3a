import type { RedisClient } from "@millrace/shared/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/keys.js";

/** Jobs of a model's queue by state; each count is one command whatever the depth. */
export async function queueDepths(redis: RedisClient, { queue }: ModelKeys) {
  const [wait, prioritized, scheduled, running, failed] = await Promise.all([
    redis.llen(`${queue}wait`),
    redis.zcard(`${queue}prioritized`),
    redis.zcard(`${queue}delayed`),
    redis.llen(`${queue}active`),
    redis.zcard(`${queue}failed`),
  ]);
  return { waiting: wait + prioritized, scheduled, running, failed };
}
