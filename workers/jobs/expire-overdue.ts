import { predictionJobSchema, toldAtOnce } from "@millrace/shared/predictions/job.js";
import { predictionJson } from "@millrace/shared/predictions/prediction.js";
import type { StatisticsCounter } from "@millrace/shared/predictions/statistics.js";
import type { OnStored } from "@millrace/shared/predictions/storage-counter.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import {
  cancelChannel,
  type ModelKeys,
  modelKeys,
  noticeChannel,
  registryKey,
  sweeperKey,
} from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { tellFollowers } from "@millrace/shared/scripts/followers/tell.js";
import { holdLease } from "@millrace/shared/scripts/lease.js";
import { endFinish, finishPredictions } from "@millrace/shared/scripts/predictions/finish.js";
import { readPrediction, viewPending } from "@millrace/shared/scripts/predictions/read.js";
import { type Logger, logTogether } from "@millrace/shared/service/log.js";

export interface ExpiringOverdue {
  close(): Promise<void>;
}

const lookEveryMs = 1000;
/** Another worker takes over after so long without a renewal, in ms. */
const leaseMs = 4000;
/** Most predictions of one model ended in one pass, so that many of them do not hold up other models. */
const endedAtOnce = 200;

/**
 * Ends predictions that were not begun in time, of every model that was ever announced, so that their webhooks are sent
 * even where nobody reads them and no worker serves the model. One worker does so for all, by a lease. An end is
 * written once even if two do.
 */
export function expireOverdue(options: {
  redis: RedisClient;
  workerId: string;
  keyPrefix: string;
  resultTtlSeconds: number;
  onStored: OnStored;
  statistics: StatisticsCounter;
  clock: Clock;
  log: Logger;
}): ExpiringOverdue {
  const { clock, keyPrefix, log, onStored, redis, resultTtlSeconds, statistics, workerId } = options;
  const settings = {
    resultTtlSeconds,
    channelPrefix: noticeChannel(keyPrefix, ""),
    cancelChannel: cancelChannel(keyPrefix),
    onStored,
  };

  const expire = async (model: string, keys: ModelKeys, id: string) => {
    const read = await readPrediction(redis, keys, id, "");
    const job =
      read !== null && "pending" in read ? predictionJobSchema.safeParse(JSON.parse(read.pending.dataJson)) : null;
    if (read !== null && "pending" in read && job?.success) {
      const { data } = job;
      const announced = await redis.hget(keys.versions, data.ver);
      const digest = announced === null ? "" : (JSON.parse(announced) as { digest: string }).digest;
      const view = viewPending({ name: model, digestOf: () => digest }, id, { ...read.pending, data }, clock.now());
      // A prediction that was begun in time ends with its run.
      if (view.status === "expired") {
        const result = { owner: data.o, status: view.status, json: predictionJson(view) };
        const finish = endFinish(id, data, "unbegun", result, false);
        const [outcome] = await finishPredictions(redis, keys, [finish], { ...settings, nowMs: clock.now() });
        if (outcome === "written") {
          statistics.ended({ model, owner: data.o, version: data.ver }, view.status);
          logTogether(log, "prediction expired")({ prediction_id: id, model, request_id: data.r });
        }
      }
    }
    await redis.zrem(keys.expiring, id);
  };

  const look = async () => {
    if (!(await holdLease(redis, sweeperKey(keyPrefix), workerId, leaseMs))) return;
    for (const model of await redis.hkeys(registryKey(keyPrefix))) {
      const keys = modelKeys(keyPrefix, model);
      const overdue = await redis.zrangebyscore(keys.expiring, "-inf", clock.now(), "LIMIT", 0, endedAtOnce);
      await Promise.all(overdue.map((id) => expire(model, keys, id)));
      // Whose worker has died among them, or is at it.
      const ending = (await redis.hrandfield(keys.ending, toldAtOnce)) as string[] | null;
      for (const id of ending ?? []) await tellFollowers(redis, keys, id, { ...settings, nowMs: clock.now() });
    }
  };

  let looking = Promise.resolve();
  let closed = false;
  const again = () => {
    looking = look()
      .catch((error: Error) => log.warn("overdue predictions not ended", { error }))
      .then(() => {
        if (!closed) timer = setTimeout(again, lookEveryMs);
      });
  };
  let timer = setTimeout(again, lookEveryMs);
  return {
    close: () => {
      closed = true;
      clearTimeout(timer);
      return looking;
    },
  };
}
