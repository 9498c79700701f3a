import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, number, text } from "../lua/fields.js";

const script = defineScript({
  name: "millraceStageFailed",
  file: "batches/stage-failed",
  keys: {
    failed: text("Failed lines of the earlier batch, by chunk."),
    chunks: text("Inputs by chunk."),
    lines: text("Lines of each chunk."),
  },
  fields: { keepMs: number("Time to keep the staged keys.") },
  each: { number: text("Number of a chunk of the earlier batch.") },
  answer: answers<[lines: number, bytes: number]>("The number of lines, and the bytes of their chunks."),
});

/** Most chunks of one step: Redis copies them, up to a megabyte each. */
export const chunksAtOnce = 2;

/** Stages chunks of another batch's failed lines; resolves to the number of lines and of bytes. */
export async function stageFailed(
  redis: RedisClient,
  keys: ModelKeys,
  from: string,
  to: string,
  numbers: readonly string[],
  keepMs: number,
): Promise<{ lines: number; bytes: number }> {
  const [lines, bytes] = await script.run(redis, {
    keys: { failed: keys.batchFailed(from), chunks: keys.batchChunks(to), lines: keys.batchLines(to) },
    fields: { keepMs },
    each: numbers.map((number) => ({ number })),
  });
  return { lines, bytes };
}
