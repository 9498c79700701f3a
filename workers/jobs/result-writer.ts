import { setTimeout as delay } from "node:timers/promises";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { cancelChannel, type ModelKeys, noticeChannel } from "@millrace/shared/redis/keys.js";
import { type Finish, type FinishOutcome, finishPredictions } from "@millrace/shared/scripts/predictions/finish.js";
import type { Logger } from "@millrace/shared/service/log.js";

const longestCallBytes = 1_000_000;
const retryDelayMs = 250;

export interface ResultWriter {
  /** Makes a prediction final. Resolves once Redis has the result, however long that takes. */
  write(finish: Finish): Promise<FinishOutcome>;
}

interface Pending {
  finish: Finish;
  resolve(outcome: FinishOutcome): void;
}

/**
 * Writes the results of one model. Results of the same turn of the event loop, as those of one run are, go in one step.
 * When Redis refuses (full, read-only during a fail-over), the step is tried again until the job's lock has expired,
 * which gives `lost`.
 */
export function createResultWriter(
  redis: RedisClient,
  keys: ModelKeys,
  settings: { keyPrefix: string; resultTtlSeconds: number; workerId: string; log: Logger },
): ResultWriter {
  let pending: Pending[] = [];
  const finishSettings = {
    resultTtlSeconds: settings.resultTtlSeconds,
    channelPrefix: noticeChannel(settings.keyPrefix, ""),
    cancelChannel: cancelChannel(settings.keyPrefix),
    workerId: settings.workerId,
  };

  const flush = async (batch: readonly Pending[]) => {
    for (;;) {
      try {
        const outcomes = await finishPredictions(
          redis,
          keys,
          batch.map((entry) => entry.finish),
          finishSettings,
        );
        for (const [i, entry] of batch.entries()) entry.resolve(outcomes[i] as FinishOutcome);
        return;
      } catch (error) {
        settings.log.error("results not written, trying again", { error, results: batch.length });
        await delay(retryDelayMs);
      }
    }
  };

  const flushAll = () => {
    let batch: Pending[] = [];
    let bytes = 0;
    for (const entry of pending) {
      batch.push(entry);
      bytes += entry.finish.result.json.length;
      if (bytes >= longestCallBytes) {
        void flush(batch);
        batch = [];
        bytes = 0;
      }
    }
    if (batch.length > 0) void flush(batch);
    pending = [];
  };

  return {
    write(finish) {
      return new Promise((resolve) => {
        // The results of one run arrive one after the other, before any of their consequences.
        if (pending.length === 0) queueMicrotask(flushAll);
        pending.push({ finish, resolve });
      });
    },
  };
}
