import { behindByPriority } from "@millrace/shared/predictions/job.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { bullKeys } from "@millrace/shared/redis/key-names.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";

/**
 * Whether every waiting job of a model arrived after that time (ms since the epoch). Waiting jobs are in order of
 * arrival, so the oldest decides. Jobs with a lower priority are in another order, so there must be none. Delayed jobs
 * do not count.
 */
export async function isBacklogYounger(redis: RedisClient, keys: ModelKeys, sinceMs: number): Promise<boolean> {
  const both = await Promise.all([keys.queue, keys.batchQueue].map((queue) => isQueueYounger(redis, queue, sinceMs)));
  return both.every(Boolean);
}

async function isQueueYounger(redis: RedisClient, queue: string, sinceMs: number): Promise<boolean> {
  const [back, [first = null], last] = await Promise.all([
    redis.lindex(`${queue}${bullKeys.wait}`, -1),
    redis.zrange(`${queue}${bullKeys.prioritized}`, "0", "0"),
    redis.zrange(`${queue}${bullKeys.prioritized}`, "-1", "-1", "WITHSCORES"),
  ]);
  if (Number(last[1] ?? 0) >= behindByPriority) return false;
  const younger = [back, first].map(async (oldest) => {
    const timestamp = oldest === null ? null : await redis.hget(`${queue}${oldest}`, "timestamp");
    return timestamp === null || Number(timestamp) > sinceMs;
  });
  return (await Promise.all(younger)).every(Boolean);
}
