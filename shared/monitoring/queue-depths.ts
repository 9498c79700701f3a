import { delayedScorePerMs } from "../predictions/job.js";
import type { RedisClient } from "../redis/connect-redis.js";
import { bullKeys } from "../redis/key-names.js";
import type { ModelKeys } from "../redis/keys.js";

/** The highest score in BullMQ's `delayed` of a job that is due. */
export const dueScore = (nowMs: number): number => (nowMs + 1) * delayedScorePerMs - 1;

/** Jobs of a model's queue by state, and rows of batches that are not done; each is one command whatever the depth. */
export async function queueDepths(redis: RedisClient, { bulkRows, queue }: ModelKeys, nowMs: number) {
  const [jobs, rows] = await Promise.all([jobsByState(redis, queue, nowMs), redis.get(bulkRows)]);
  return { ...jobs, batch_rows: Number(rows ?? 0) };
}

/** Rows and bytes of input of the single predictions that wait. */
export async function waitingLoad(redis: RedisClient, keys: ModelKeys): Promise<{ rows: number; bytes: number }> {
  const [rows, bytes] = await redis.hmget(keys.waitingLoad, "rows", "bytes");
  return { rows: Number(rows ?? 0), bytes: Number(bytes ?? 0) };
}

/**
 * Jobs of a queue by state, by what its keys begin with. A scheduled job that is due waits, although only a worker puts
 * it among those that do: there may be none.
 */
export async function jobsByState(redis: RedisClient, queue: string, nowMs: number) {
  const [wait, prioritized, delayed, due, running, failed] = await Promise.all([
    redis.llen(`${queue}${bullKeys.wait}`),
    redis.zcard(`${queue}${bullKeys.prioritized}`),
    redis.zcard(`${queue}${bullKeys.delayed}`),
    redis.zcount(`${queue}${bullKeys.delayed}`, "-inf", dueScore(nowMs)),
    redis.llen(`${queue}${bullKeys.active}`),
    redis.zcard(`${queue}${bullKeys.failed}`),
  ]);
  return { waiting: wait + prioritized + due, scheduled: Math.max(0, delayed - due), running, failed };
}
