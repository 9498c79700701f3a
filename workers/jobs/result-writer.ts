import { setTimeout as delay } from "node:timers/promises";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { cancelChannel, type ModelKeys, noticeChannel } from "@millrace/shared/redis/keys.js";
import { type Finish, type FinishOutcome, finishPredictions } from "@millrace/shared/scripts/predictions/finish.js";
import { joinCalls } from "@millrace/shared/service/join-turn.js";
import type { Logger } from "@millrace/shared/service/log.js";

const longestCallBytes = 1_000_000;
const retryDelayMs = 250;

export interface ResultWriter {
  /** Makes a prediction final. Resolves once Redis has the result, however long that takes. */
  write(finish: Finish): Promise<FinishOutcome>;
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
  const finishSettings = {
    resultTtlSeconds: settings.resultTtlSeconds,
    channelPrefix: noticeChannel(settings.keyPrefix, ""),
    cancelChannel: cancelChannel(settings.keyPrefix),
    workerId: settings.workerId,
  };

  const write = async (finishes: readonly Finish[]) => {
    for (;;) {
      try {
        return await finishPredictions(redis, keys, finishes, finishSettings);
      } catch (error) {
        settings.log.error("results not written, trying again", { error, results: finishes.length });
        await delay(retryDelayMs);
      }
    }
  };
  // The results of one run arrive one after the other, before any of their consequences.
  const joined = joinCalls<Finish, FinishOutcome>(write, {
    moment: queueMicrotask,
    maxBytes: longestCallBytes,
    bytesOf: ({ result }) => result.json.length,
  });
  return { write: joined };
}
