import { shrinkChunk } from "@millrace/shared/predictions/bulk-chunk.js";
import { chunkOverheadBytes } from "@millrace/shared/predictions/storage-counter.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { expectLargeBuffers } from "@millrace/shared/redis/large-buffers.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { dropStaged, type EarlyRun, keepStaged, stageChunk } from "@millrace/shared/scripts/batches/stage-chunks.js";
import type { BuiltChunk } from "./chunk-builder.js";

/** Writes the chunks of one upload to Redis as they are built. */
export interface UploadStage {
  /** The early run of chunks that are added from now on, before all are there; null: none. */
  early: EarlyRun | null;
  /** Bytes that were sent so far; chunks that would take much more are compressed. */
  sentBytes: number;
  /** Bytes of the chunks that are there or on their way. */
  readonly chunkBytes: number;
  add(chunk: BuiltChunk): void;
  /**
   * Resolves when so few are on their way that more may be built; keeps what is there from expiring. Rejects as Redis
   * does.
   */
  ready(): Promise<void>;
  /** Resolves when all are there. */
  settled(): Promise<void>;
  /** Drops what is there; never rejects, because it expires all the same. */
  drop(): Promise<void>;
}

/** What is kept for an upload may be so many times what was sent, until it is compressed. */
const looseRatio = 2;

/** Few, because a single prediction waits until Redis has synced the chunks before it. */
const writesAtOnce = 1;

export function openUploadStage(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  { clock, keepMs }: { keepMs: number; clock: Clock },
): UploadStage {
  expectLargeBuffers();
  const writes: Promise<void>[] = [];
  let lastAt = performance.now();
  const keep = async () => {
    lastAt = performance.now();
    await keepStaged(redis, keys, id, keepMs);
  };
  let [chunkBytes, chunks] = [0, 0];
  /** Resolves when the last chunk is under way: they are sent in their order, because they may run in it. */
  let sent: Promise<void> | null = null;
  const write = async (chunk: BuiltChunk): Promise<void> => {
    const early = stage.early === null ? null : { ...stage.early, nowMs: clock.now() };
    const overhead = (chunks + 1) * chunkOverheadBytes;
    const loose = chunkBytes + chunk.bytes.length + overhead <= looseRatio * stage.sentBytes;
    chunks += 1;
    if (loose) chunkBytes += chunk.bytes.length;
    if (loose && sent === null) return stageChunk(redis, keys, id, chunk, keepMs, early);
    const before = sent;
    const small = (async () => {
      const bytes = loose ? chunk.bytes : await shrinkChunk(chunk.bytes);
      if (!loose) chunkBytes += bytes.length;
      await before;
      return bytes;
    })();
    const turn = small.then(() => undefined);
    // Whoever waits for the chunk hears of a fault.
    turn.catch(() => undefined);
    sent = turn;
    try {
      return await stageChunk(redis, keys, id, { ...chunk, bytes: await small }, keepMs, early);
    } finally {
      if (sent === turn) sent = null;
    }
  };
  const stage: UploadStage = {
    early: null,
    sentBytes: 0,
    get chunkBytes() {
      return chunkBytes;
    },
    add(chunk) {
      lastAt = performance.now();
      const written = write(chunk);
      // It is awaited in its turn; until then a failure must not count as unhandled.
      written.catch(() => undefined);
      writes.push(written);
    },
    async ready() {
      while (writes.length > writesAtOnce) {
        await writes[0];
        writes.shift();
      }
      if (performance.now() - lastAt > keepMs / 3) await keep();
    },
    async settled() {
      await Promise.all(writes.splice(0));
    },
    async drop() {
      await Promise.allSettled(writes.splice(0));
      await dropStaged(redis, keys, id).catch(() => undefined);
    },
  };
  return stage;
}
