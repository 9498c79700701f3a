import { automaticTraffic, decodeTraffic, encodeTraffic, type Traffic } from "../../models/traffic.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { runScript, type Script } from "../queue/script.js";

/** Changes of the split that can be rolled back, one after the other. */
export const keptChanges = 20;

/** The split as it is stored, how often it has changed, when last, and what it was before that. */
export interface StoredTraffic extends Traffic {
  revision: number;
  changedAt: number | null;
  previous: Traffic | null;
}

/**
 * KEYS: traffic, history. ARGV: new split, now (ms), changes kept, split of whom none was set. The hash holds `current`,
 * `revision` and `changed`.
 */
const changeScript: Script = {
  name: "millraceTraffic",
  lua: `
redis.call('LPUSH', KEYS[2], redis.call('HGET', KEYS[1], 'current') or ARGV[4])
redis.call('LTRIM', KEYS[2], 0, ARGV[3] - 1)
redis.call('HSET', KEYS[1], 'current', ARGV[1], 'changed', ARGV[2])
return redis.call('HINCRBY', KEYS[1], 'revision', 1)`,
};

/** KEYS: traffic, history. ARGV: now (ms), revision that is to be rolled back or "". */
const rollbackScript: Script = {
  name: "millraceRollback",
  lua: `
if ARGV[2] ~= '' and (redis.call('HGET', KEYS[1], 'revision') or '0') ~= ARGV[2] then return 'moved' end
local before = redis.call('LPOP', KEYS[2])
if not before then return 'none' end
redis.call('HSET', KEYS[1], 'current', before, 'changed', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'revision', 1)
return 'done'`,
};

/** Sets how a model's submissions are split; what it was before is kept for a rollback. */
export async function changeTraffic(redis: RedisClient, keys: ModelKeys, traffic: Traffic): Promise<void> {
  const args = [encodeTraffic(traffic), Date.now(), keptChanges, encodeTraffic(automaticTraffic)];
  await runScript(redis, changeScript, [keys.traffic, keys.trafficHistory], args);
}

/** Sets the split to what it was before its last change; `moved`: that is not the change that was meant. */
export async function rollBackTraffic(
  redis: RedisClient,
  keys: ModelKeys,
  revision: number | null,
): Promise<"done" | "none" | "moved"> {
  const args = [Date.now(), revision ?? ""];
  return (await runScript(redis, rollbackScript, [keys.traffic, keys.trafficHistory], args)) as "done";
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
