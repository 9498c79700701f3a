import { copyBlob, largestInlineBytes, unclaimedTtlMs, writeBlob } from "@millrace/shared/blob.js";
import type { RedisClient } from "@millrace/shared/connect-redis.js";
import { ServiceError } from "@millrace/shared/errors.js";
import type { ModelKeys } from "@millrace/shared/keys.js";

/** The fields of a job that hold its input. */
export interface KeptInput {
  x: string;
  b?: number;
}

/**
 * An input as the fields of its job. A large one becomes a blob under the prediction's id, which goes by itself unless
 * the prediction is accepted within the minute; that of a retry is copied within Redis.
 */
export async function keepInput(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  input: Buffer | { of: string; input: string; bytes?: number | undefined },
): Promise<KeptInput> {
  if (Buffer.isBuffer(input)) {
    if (input.length <= largestInlineBytes) return { x: input.toString("base64") };
    await writeBlob(redis, keys, id, input, unclaimedTtlMs);
    return { x: "", b: input.length };
  }
  if (input.bytes === undefined) return { x: input.input };
  const copied = await copyBlob(redis, keys, input.of, id, unclaimedTtlMs);
  if (!copied) throw new ServiceError("prediction_not_found", "the input of the prediction is no longer kept");
  return { x: "", b: input.bytes };
}
