import { automaticTraffic, decodeTraffic, encodeTraffic, type Traffic } from "../../models/traffic.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, number, optional, text } from "../lua/fields.js";

/** Number of changes of the split that can be rolled back, one after the other. */
export const keptChanges = 20;

/** The stored split, its number of changes, the time of the last change (ms), and the split before it. */
export interface StoredTraffic extends Traffic {
  revision: number;
  changedAt: number | null;
  previous: Traffic | null;
}

const keyTable = {
  traffic: text("Hash: `current`, the split as JSON; `revision`, number of changes; `changed`, the last time (ms)."),
  history: text("Earlier splits, newest first."),
};

const changeScript = defineScript({
  name: "millraceTraffic",
  file: "models/change-traffic",
  keys: keyTable,
  fields: {
    traffic: text("The new split."),
    nowMs: number("Time of the change."),
    keptChanges: number("Changes that can be rolled back."),
    automatic: text("The split of a model without a set one."),
  },
});

const rollbackScript = defineScript({
  name: "millraceRollback",
  file: "models/roll-back-traffic",
  keys: keyTable,
  fields: {
    nowMs: number("Time of the change."),
    revision: optional(number("The revision to roll back; none: the last.")),
  },
  answer: answers<"done" | "none" | "moved">("What became of the request."),
});

/** Sets a model's traffic split; the one before is kept for a rollback. */
export async function changeTraffic(
  redis: RedisClient,
  keys: ModelKeys,
  traffic: Traffic,
  nowMs: number,
): Promise<void> {
  await changeScript.run(redis, {
    keys: { traffic: keys.traffic, history: keys.trafficHistory },
    fields: {
      traffic: encodeTraffic(traffic),
      nowMs,
      keptChanges,
      automatic: encodeTraffic(automaticTraffic),
    },
  });
}

/** Restores the split before the last change; `moved`: the given revision is not the last one. */
export async function rollBackTraffic(
  redis: RedisClient,
  keys: ModelKeys,
  revision: number | null,
  nowMs: number,
): Promise<"done" | "none" | "moved"> {
  return rollbackScript.run(redis, {
    keys: { traffic: keys.traffic, history: keys.trafficHistory },
    fields: { nowMs, revision },
  });
}

/** Reads a model's traffic split. */
export async function readTraffic(redis: RedisClient, keys: ModelKeys): Promise<StoredTraffic> {
  const [[current, revision, changed], before] = await Promise.all([
    redis.hmget(keys.traffic, "current", "revision", "changed"),
    redis.lindex(keys.trafficHistory, 0),
  ]);
  return {
    ...decodeTraffic(current ?? null),
    revision: Number(revision ?? 0),
    changedAt: changed == null ? null : Number(changed),
    previous: before === null ? null : decodeTraffic(before),
  };
}
