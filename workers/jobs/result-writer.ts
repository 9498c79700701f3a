import { setTimeout as delay } from "node:timers/promises";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { cancelChannel, type ModelKeys, noticeChannel } from "@millrace/shared/redis/keys.js";
import { type Finish, type FinishOutcome, finishPredictions } from "@millrace/shared/scripts/predictions/finish.js";
import { joinCalls } from "@millrace/shared/service/join-turn.js";
import type { Logger } from "@millrace/shared/service/log.js";

const longestCallBytes = 1_000_000;
const retryDelayMs = 250;

export interface ResultWriter {
  /** Makes a prediction final. Resolves once Redis has it, however long that takes. */
  write(finish: Finish): Promise<FinishOutcome>;
}

/**
 * Writes the results of one model. Those that come in the same turn of the event loop, as the results of one run do,
 * go in one step. Where Redis refuses (full, read-only during a fail-over), it is tried again until the job's lock is
 * gone, which Redis then says as `lost`.
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
        settings.log.error("results cannot be written, trying again", { error, results: finishes.length });
        await delay(retryDelayMs);
      }
    }
  };
  // The results of one run come one after the other, before anything that they lead to.
  const joined = joinCalls<Finish, FinishOutcome>(write, {
    moment: queueMicrotask,
    maxBytes: longestCallBytes,
    bytesOf: ({ result }) => result.json.length,
  });
  return { write: joined };
}
