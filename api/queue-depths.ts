import type { RedisClient } from "@millrace/shared/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/keys.js";

/** Jobs of a model's queue by state, and rows of batches that are not done; each is one command whatever the depth. */
export async function queueDepths(redis: RedisClient, { bulkRows, queue }: ModelKeys) {
  const [jobs, rows] = await Promise.all([jobsByState(redis, queue), redis.get(bulkRows)]);
  return { ...jobs, batch_rows: Number(rows ?? 0) };
}

/** Jobs of a queue by state, by what its keys begin with. */
export async function jobsByState(redis: RedisClient, queue: string) {
  const [wait, prioritized, scheduled, running, failed] = await Promise.all([
    redis.llen(`${queue}wait`),
    redis.zcard(`${queue}prioritized`),
    redis.zcard(`${queue}delayed`),
    redis.llen(`${queue}active`),
    redis.zcard(`${queue}failed`),
  ]);
  return { waiting: wait + prioritized, scheduled, running, failed };
}
