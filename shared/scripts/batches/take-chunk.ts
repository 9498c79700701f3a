import { chunkJobId } from "../../predictions/batch.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, number, text } from "../lua/fields.js";

const takeScript = defineScript({
  name: "millraceTakeChunk",
  file: "batches/take-chunk",
  keys: {
    batch: text("The batch."),
    results: text("Outputs by chunk."),
    running: text("Run notes by id."),
    deaths: text("Deaths with the whole worker, by job."),
  },
  fields: { number: number("The chunk's number."), jobId: text("The id of the chunk's job.") },
  answer: answers<[version: string, owner: string, begun: 0 | 1] | null>("Null for a chunk that is not needed."),
  whenFull: true,
});

const beginScript = defineScript({
  name: "millraceBeginBatch",
  file: "batches/begin-batch",
  keys: { batch: text("The batch.") },
  fields: { nowMs: number("Time of the start.") },
  whenFull: true,
});

/** A chunk whose outputs are still needed. */
export interface TakenChunk {
  version: string;
  owner: string;
  /** Whether its batch counts as started; if not, the caller must call `beginBatch`. */
  begun: boolean;
  bytes: Buffer;
}

/**
 * The inputs of a chunk whose outputs are still needed, else null. Writes nothing for such a chunk, since a write may
 * take as long as an fsync; otherwise removes its run note and deaths.
 */
export async function takeChunk(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  number: number,
): Promise<TakenChunk | null> {
  const { deaths, running } = keys;
  // The inputs are read beside the step, because Lua would copy them twice.
  const [taken, bytes] = await Promise.all([
    takeScript.run(redis, {
      keys: { batch: keys.batch(id), results: keys.batchResults(id), running, deaths },
      fields: { number, jobId: chunkJobId(id, number) },
    }),
    redis.hgetBuffer(keys.batchChunks(id), String(number)),
  ]);
  return taken === null || bytes === null ? null : { version: taken[0], owner: taken[1], begun: taken[2] === 1, bytes };
}

/** Marks a batch as started, unless it is. */
export async function beginBatch(redis: RedisClient, keys: ModelKeys, id: string, nowMs: number): Promise<void> {
  await beginScript.run(redis, { keys: { batch: keys.batch(id) }, fields: { nowMs } });
}
