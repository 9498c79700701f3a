import { setTimeout as delay } from "node:timers/promises";
import type { StoredTensors } from "@millrace/shared/predictions/prediction.js";
import { dropBlob, largestInlineBytes, readBlob, writeBlob } from "@millrace/shared/redis/blob.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { ByteBudget } from "./byte-budget.js";

/** Inputs and outputs of one model that are too large for jobs and results. */
export interface BlobKeeper {
  /** Resolves when a large input may be held, to a reservation that the caller releases. */
  makeRoom(bytes: number): Promise<{ release(): void }>;
  /** The input of a prediction; null if it has expired. */
  read(id: string, bytes: number): Promise<Buffer | null>;
  /**
   * Keeps an output for the result time, a large one in keys of its own. Resolves once Redis has it, however long that
   * takes.
   */
  keep(pack: Buffer): Promise<StoredTensors>;
  /** Drops the output of a result that was not written. */
  forget(kept: StoredTensors | undefined): Promise<void>;
}

const retryDelayMs = 250;
/** A blob must outlive its result, which is written a moment later. */
const blobExtraTtlMs = 60_000;

export function createBlobKeeper(options: {
  redis: RedisClient;
  keys: ModelKeys;
  memory: ByteBudget;
  resultTtlSeconds: number;
  log: Logger;
}): BlobKeeper {
  const { keys, log, memory, redis } = options;
  const ttlMs = options.resultTtlSeconds * 1000 + blobExtraTtlMs;
  return {
    makeRoom: (bytes) => memory.take(bytes),
    read: (id, bytes) => readBlob(redis, keys, id, bytes),
    async keep(pack) {
      if (pack.length <= largestInlineBytes) return { pack: pack.toString("base64") };
      for (;;) {
        // A name for each try, because a failed one may be there in part.
        const blob = newId(keys.tag);
        try {
          await writeBlob(redis, keys, blob, pack, ttlMs);
          return { blob, bytes: pack.length };
        } catch (error) {
          log.error("output not written, trying again", { error, bytes: pack.length });
          await dropBlob(redis, keys, blob).catch(() => undefined);
          await delay(retryDelayMs);
        }
      }
    },
    async forget(kept) {
      if (kept !== undefined && "blob" in kept) await dropBlob(redis, keys, kept.blob);
    },
  };
}
