import type { RedisClient } from "@millrace/shared/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/keys.js";

/**
 * Whether all that waits for a model came after that time (ms since the epoch). The list is in order of arrival, so its
 * oldest tells; what waits behind by priority has no such order, so there must be none of it. What is delayed is not
 * waited for.
 */
export async function isBacklogYounger(redis: RedisClient, keys: ModelKeys, sinceMs: number): Promise<boolean> {
  const both = await Promise.all([keys.queue, keys.batchQueue].map((queue) => isQueueYounger(redis, queue, sinceMs)));
  return both.every(Boolean);
}

async function isQueueYounger(redis: RedisClient, queue: string, sinceMs: number): Promise<boolean> {
  const [oldest, prioritized] = await Promise.all([
    redis.lindex(`${queue}wait`, -1),
    redis.zcard(`${queue}prioritized`),
  ]);
  if (prioritized > 0) return false;
  if (oldest === null) return true;
  const timestamp = await redis.hget(`${queue}${oldest}`, "timestamp");
  return timestamp === null || Number(timestamp) > sinceMs;
}
