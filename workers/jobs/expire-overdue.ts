import { predictionJobSchema } from "@millrace/shared/predictions/job.js";
import { predictionJson } from "@millrace/shared/predictions/prediction.js";
import type { StatisticsCounter } from "@millrace/shared/predictions/statistics.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import {
  cancelChannel,
  type ModelKeys,
  modelKeys,
  noticeChannel,
  registryKey,
  sweeperKey,
} from "@millrace/shared/redis/keys.js";
import { holdLease } from "@millrace/shared/scripts/lease.js";
import { endFinish, finishPredictions } from "@millrace/shared/scripts/predictions/finish.js";
import { readPrediction, viewPending } from "@millrace/shared/scripts/predictions/read.js";
import type { Logger } from "@millrace/shared/service/log.js";

export interface ExpiringOverdue {
  close(): Promise<void>;
}

const lookEveryMs = 1000;
/** After so long without a sign of the worker that looks, another does. */
const leaseMs = 4000;
/** Predictions of one model that are ended in one look, so that a flood of them does not hold up the rest. */
const endedAtOnce = 200;

/**
 * Ends what was not begun in time, of every model that was ever announced, so that its webhooks are sent although
 * nobody reads it and no worker has its model. One worker does so for all, by a lease; should two, an end is written once.
 */
export function expireOverdue(options: {
  redis: RedisClient;
  workerId: string;
  keyPrefix: string;
  resultTtlSeconds: number;
  statistics: StatisticsCounter;
  log: Logger;
}): ExpiringOverdue {
  const { keyPrefix, log, redis, resultTtlSeconds, statistics, workerId } = options;
  const settings = {
    resultTtlSeconds,
    channelPrefix: noticeChannel(keyPrefix, ""),
    cancelChannel: cancelChannel(keyPrefix),
  };

  const expire = async (model: string, keys: ModelKeys, id: string) => {
    const read = await readPrediction(redis, keys, id, "");
    const job =
      read !== null && "pending" in read ? predictionJobSchema.safeParse(JSON.parse(read.pending.dataJson)) : null;
    if (read !== null && "pending" in read && job?.success) {
      const { data } = job;
      const announced = await redis.hget(keys.versions, data.ver);
      const digest = announced === null ? "" : (JSON.parse(announced) as { digest: string }).digest;
      const view = viewPending({ name: model, digestOf: () => digest }, id, { ...read.pending, data });
      // One that was begun in time ends with its run.
      if (view.status === "expired") {
        const result = { owner: data.o, status: view.status, json: predictionJson(view) };
        const finish = endFinish(id, data, "unbegun", result, false);
        const [outcome] = await finishPredictions(redis, keys, [finish], settings);
        if (outcome === "written") {
          statistics.ended({ model, owner: data.o, version: data.ver }, view.status);
          log.info("prediction expired", { prediction_id: id, model, request_id: data.r });
        }
      }
    }
    await redis.zrem(keys.expiring, id);
  };

  const look = async () => {
    if (!(await holdLease(redis, sweeperKey(keyPrefix), workerId, leaseMs))) return;
    for (const model of await redis.hkeys(registryKey(keyPrefix))) {
      const keys = modelKeys(keyPrefix, model);
      const overdue = await redis.zrangebyscore(keys.expiring, "-inf", Date.now(), "LIMIT", 0, endedAtOnce);
      await Promise.all(overdue.map((id) => expire(model, keys, id)));
    }
  };

  let looking = Promise.resolve();
  let closed = false;
  const again = () => {
    looking = look()
      .catch((error: Error) => log.warn("overdue predictions could not be ended", { error }))
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
