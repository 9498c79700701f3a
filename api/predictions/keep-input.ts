import { copyBlob, largestInlineBytes, sendBlob, unclaimedTtlMs } from "@millrace/shared/redis/blob.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { ServiceError } from "@millrace/shared/service/errors.js";

export interface KeptInput {
  /** The fields of the job that hold it. */
  fields: { x: string; b?: number };
  /** Of one that is a blob: its pieces, and when Redis has them. */
  blob?: { pieces: number; written: Promise<unknown> };
}

/**
 * Keeps an input for its job. A large one becomes a blob under the prediction's id, which goes by itself unless
 * the prediction is accepted within the minute; that of a retry is copied within Redis.
 */
export async function keepInput(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  input: Buffer | { of: string; input: string; bytes?: number | undefined },
): Promise<KeptInput> {
  if (Buffer.isBuffer(input)) {
    if (input.length <= largestInlineBytes) return { fields: { x: input.toString("base64") } };
    const blob = await sendBlob(redis, keys, id, input, unclaimedTtlMs);
    // The accepting step, which is awaited first, sees what went wrong; the reason is told after that.
    blob.written.catch(() => undefined);
    return { fields: { x: "", b: input.length }, blob };
  }
  if (input.bytes === undefined) return { fields: { x: input.input } };
  const pieces = await copyBlob(redis, keys, input.of, id, unclaimedTtlMs);
  if (pieces === 0) throw new ServiceError("prediction_not_found", "The prediction's input has expired.");
  return { fields: { x: "", b: input.bytes }, blob: { pieces, written: Promise.resolve() } };
}
