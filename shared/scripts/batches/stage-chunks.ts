import { Cluster } from "ioredis";
import { lineCountBytes } from "../../predictions/batch.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { execMulti } from "../../redis/exec-multi.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { number, text } from "../lua/fields.js";

/**
 * Rules of staging:
 * - All staged keys expire, and no request can read them; only the commit in `commit-batch.ts` makes them a batch.
 * - Chunks may run as soon as they are staged, so that a batch runs during its upload, not after it. Until the commit,
 *   its hash holds the version and counts finished chunks. Jobs left in the queue by a broken upload find nothing.
 */
const earlyScript = defineScript({
  name: "millraceRunEarly",
  file: "batches/run-early",
  keys: {
    batch: text("The staged batch."),
    chunks: text("Inputs by chunk."),
    results: text("Outputs by chunk."),
    failed: text("Failed inputs by chunk."),
  },
  fields: {
    id: text("The batch's id."),
    number: number("The chunk's number."),
    nowMs: number("Time of adding."),
    base: text("Prefix of the model's own keys."),
    queue: text("Prefix of the keys of the model's queue of chunks."),
    version: text("The version for its runs."),
    priority: number("0: in order of arrival; 1 (highest) to 1000 (lowest): behind 0."),
    keepMs: number("Time to keep the staged keys."),
    uploader: text("The uploader."),
    weight: number("The uploader's weight in the queue."),
  },
});

/** Settings for running chunks before their batch is accepted. */
export interface EarlyRun {
  /** The owner of the upload; the batch itself has an owner only after its acceptance. */
  uploader: string;
  weight: number;
  version: string;
  priority: number;
}

/** All keys that staging a batch may write. */
const stagedKeys = (keys: ModelKeys, id: string): string[] => [
  keys.batch(id),
  keys.batchChunks(id),
  keys.batchLines(id),
  keys.batchResults(id),
  keys.batchFailed(id),
];

/**
 * Keeps a chunk of a batch during its upload, and lets it run if `early` is given; extends the life of the chunks
 * staged before.
 */
export async function stageChunk(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  chunk: { number: number; lines: number; bytes: Buffer },
  keepMs: number,
  early: (EarlyRun & { nowMs: number }) | null = null,
): Promise<void> {
  const written = writeChunk(redis, keys, id, chunk, keepMs);
  if (early === null) return written;
  const { nowMs, priority, uploader, version, weight } = early;
  const [batch, chunks, , results, failed] = stagedKeys(keys, id) as [string, string, string, string, string];
  const run = earlyScript.run(redis, {
    keys: { batch, chunks, results, failed },
    fields: {
      id,
      number: chunk.number,
      nowMs,
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

/** One transaction instead of a Lua step, which takes ten times as long for so large an argument. */
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
  // Separate commands, because a pipeline would copy them all once more; they are still sent together.
  await Promise.all([
    redis.multi({ pipeline: false }),
    redis.hset(chunksKey, String(number), bytes),
    redis.setrange(linesKey, lineCountBytes * number, count),
    redis.pexpire(chunksKey, keepMs),
    redis.pexpire(linesKey, keepMs),
    redis.exec(),
  ]);
}

/** Extends the life of the staged keys. */
export async function keepStaged(redis: RedisClient, keys: ModelKeys, id: string, keepMs: number): Promise<void> {
  await Promise.all(stagedKeys(keys, id).map((key) => redis.pexpire(key, keepMs)));
}

/** Drops the staged keys of a broken upload. */
export async function dropStaged(redis: RedisClient, keys: ModelKeys, id: string): Promise<void> {
  await redis.unlink(...stagedKeys(keys, id));
}
