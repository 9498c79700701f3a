import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { expectLargeBuffers } from "@millrace/shared/redis/large-buffers.js";
import { dropStaged, type EarlyRun, keepStaged, stageChunk } from "@millrace/shared/scripts/batches/stage-chunks.js";
import type { BuiltChunk } from "./chunk-builder.js";

/** Writes the chunks of one upload to Redis as they are built. */
export interface UploadStage {
  /** The early run of chunks that are added from now on, before all are there; null: none. */
  early: EarlyRun | null;
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

/** Few, because a single prediction waits until Redis has synced the chunks before it. */
const writesAtOnce = 1;

export function openUploadStage(redis: RedisClient, keys: ModelKeys, id: string, keepMs: number): UploadStage {
  expectLargeBuffers();
  const writes: Promise<void>[] = [];
  let lastAt = Date.now();
  const keep = async () => {
    lastAt = Date.now();
    await keepStaged(redis, keys, id, keepMs);
  };
  const stage: UploadStage = {
    early: null,
    add(chunk) {
      lastAt = Date.now();
      const write = stageChunk(redis, keys, id, chunk, keepMs, stage.early);
      // It is awaited in its turn; until then a failure must not count as unhandled.
      write.catch(() => undefined);
      writes.push(write);
    },
    async ready() {
      while (writes.length > writesAtOnce) {
        await writes[0];
        writes.shift();
      }
      if (Date.now() - lastAt > keepMs / 3) await keep();
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
