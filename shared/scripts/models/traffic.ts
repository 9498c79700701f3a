import { automaticTraffic, decodeTraffic, encodeTraffic, type Traffic } from "../../models/traffic.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { number, optional, text } from "../lua/fields.js";

/** Changes of the split that can be rolled back, one after the other. */
export const keptChanges = 20;

/** The split as it is stored, how often it has changed, when last, and what it was before that. */
export interface StoredTraffic extends Traffic {
  revision: number;
  changedAt: number | null;
  previous: Traffic | null;
}

const keyTable = {
  traffic: text("Hash: `current`, the split as JSON; `revision`, how often it has changed; `changed`, when last (ms)."),
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
    automatic: text("The split of a model that has none set."),
  },
});

const rollbackScript = defineScript({
  name: "millraceRollback",
  file: "models/roll-back-traffic",
  keys: keyTable,
  fields: {
    nowMs: number("Time of the change."),
    revision: optional(number("The revision that is to be rolled back; none: the last.")),
  },
});

/** Sets how a model's submissions are split; what it was before is kept for a rollback. */
export async function changeTraffic(redis: RedisClient, keys: ModelKeys, traffic: Traffic): Promise<void> {
  await changeScript.run(redis, {
    keys: { traffic: keys.traffic, history: keys.trafficHistory },
    fields: {
      traffic: encodeTraffic(traffic),
      nowMs: Date.now(),
      keptChanges,
      automatic: encodeTraffic(automaticTraffic),
    },
  });
}

/** Sets the split to what it was before its last change; `moved`: that is not the change that was meant. */
export async function rollBackTraffic(
  redis: RedisClient,
  keys: ModelKeys,
  revision: number | null,
): Promise<"done" | "none" | "moved"> {
  const outcome = await rollbackScript.run(redis, {
    keys: { traffic: keys.traffic, history: keys.trafficHistory },
    fields: { nowMs: Date.now(), revision },
  });
  return outcome as "done" | "none" | "moved";
}

/** Reads how a model's submissions are split. */
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
