import { type BatchRecord, batchFields, decodeBatch } from "../../predictions/batch.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";

/** Reads a batch; null for an unknown one. */
export async function readBatch(redis: RedisClient, keys: ModelKeys, id: string): Promise<BatchRecord | null> {
  return decodeBatch(await redis.hmget(keys.batch(id), ...batchFields));
}

/**
 * The labels of a classifier's batch, in the order of its classes; else null. Separate from `readBatch`, since they may
 * be many.
 */
export async function readLabels(redis: RedisClient, keys: ModelKeys, id: string): Promise<readonly string[] | null> {
  const text = await redis.hget(keys.batch(id), "labels");
  return text === null ? null : (JSON.parse(text) as string[]);
}
