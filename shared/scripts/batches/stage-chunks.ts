import { Cluster } from "ioredis";
import { lineCountBytes } from "../../predictions/batch.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { execMulti } from "../../redis/exec-multi.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { number, text } from "../lua/fields.js";

/**
 * Staging, which rests on these rules:
 * - What is staged expires, all keys of it, and no request leads to it; only the commit in `commit-batch.ts` makes it a
 *   batch.
 * - Chunks may be run from when they are staged, so that a batch is not run after its upload but beside it. Until the
 *   commit its hash says for which version, and counts what is done; what a broken upload leaves in the queue finds
 *   nothing.
 */
const earlyScript = defineScript({
  name: "millraceRunEarly",
  file: "batches/run-early",
  keys: {
    batch: text("The batch to be."),
    chunks: text("Inputs by chunk."),
    results: text("Outputs by chunk."),
    failed: text("Inputs that failed by chunk."),
  },
  fields: {
    id: text("The batch's id."),
    number: number("The chunk's number."),
    nowMs: number("Time of adding."),
    base: text("Prefix of the model's own keys."),
    queue: text("Prefix of the keys of the model's queue of chunks."),
    version: text("The version that runs it."),
    priority: number("0 in order of arrival; 1 (first) to 1000 (last) behind those."),
    keepMs: number("Time to keep what is staged."),
    uploader: text("The uploader."),
    weight: number("The uploader's weight in the queue."),
  },
});

/** How chunks are run before their batch is accepted. */
export interface EarlyRun {
  /** Whose upload it is; the batch itself has an owner only once it is accepted. */
  uploader: string;
  weight: number;
  version: string;
  priority: number;
}

/** All keys that a batch may have before it is one. */
const stagedKeys = (keys: ModelKeys, id: string): string[] => [
  keys.batch(id),
  keys.batchChunks(id),
  keys.batchLines(id),
  keys.batchResults(id),
  keys.batchFailed(id),
];

/**
 * Keeps a chunk of a batch that is still being uploaded, and lets it run where `early` is given; what was staged before
 * is kept as long.
 */
export async function stageChunk(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  chunk: { number: number; lines: number; bytes: Buffer },
  keepMs: number,
  early: EarlyRun | null = null,
): Promise<void> {
  const written = writeChunk(redis, keys, id, chunk, keepMs);
  if (early === null) return written;
  const { priority, uploader, version, weight } = early;
  const [batch, chunks, , results, failed] = stagedKeys(keys, id) as [string, string, string, string, string];
  const run = earlyScript.run(redis, {
    keys: { batch, chunks, results, failed },
    fields: {
      id,
      number: chunk.number,
      nowMs: Date.now(),
      base: keys.base,
      queue: keys.batchQueue,
      version,
      priority,
      keepMs,
      uploader,
      weight,
    },
  });
  await Promise.all([written, run]);
}

/** One transaction, and not a step of Lua, which takes ten times as long for so large an argument. */
async function writeChunk(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  { bytes, lines, number }: { number: number; lines: number; bytes: Buffer },
  keepMs: number,
): Promise<void> {
  const [chunksKey, linesKey] = [keys.batchChunks(id), keys.batchLines(id)];
  const count = Buffer.alloc(lineCountBytes);
  count.writeUInt32LE(lines);
  if (redis instanceof Cluster) {
    return execMulti(
      redis
        .multi()
        .hset(chunksKey, String(number), bytes)
        .setrange(linesKey, lineCountBytes * number, count)
        .pexpire(chunksKey, keepMs)
        .pexpire(linesKey, keepMs),
    );
  }
  // Command by command, because a pipeline copies all of it once more; they go out together all the same.
  await Promise.all([
    redis.multi({ pipeline: false }),
    redis.hset(chunksKey, String(number), bytes),
    redis.setrange(linesKey, lineCountBytes * number, count),
    redis.pexpire(chunksKey, keepMs),
    redis.pexpire(linesKey, keepMs),
    redis.exec(),
  ]);
}

/** Keeps what is staged for so long from now on. */
export async function keepStaged(redis: RedisClient, keys: ModelKeys, id: string, keepMs: number): Promise<void> {
  await Promise.all(stagedKeys(keys, id).map((key) => redis.pexpire(key, keepMs)));
}

/** Drops what was staged for an upload that broke off. */
export async function dropStaged(redis: RedisClient, keys: ModelKeys, id: string): Promise<void> {
  await redis.unlink(...stagedKeys(keys, id));
}
