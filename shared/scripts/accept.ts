import { addDelayedJob } from "bullmq/dist/cjs/scripts/addDelayedJob-6.js";
import { addPrioritizedJob } from "bullmq/dist/cjs/scripts/addPrioritizedJob-9.js";
import { addStandardJob } from "bullmq/dist/cjs/scripts/addStandardJob-9.js";
import type { RedisClient } from "../connect-redis.js";
import { predictionJobName } from "../job.js";
import type { ModelKeys } from "../keys.js";
import { runScript, type Script } from "./script.js";

/**
 * Accepting a prediction is one step: depth limit, BullMQ's own job, the owner's index and the note of who waits come
 * into being together or not at all, in one round trip. BullMQ's add scripts run inside it, word for word, as
 * functions; so its version is pinned, and `test/accept.test.ts` holds the queue against one that BullMQ filled.
 *
 * ARGV: queue prefix, id, data, now (ms), delay (ms), priority, depth limit, API to tell or "", how long to keep that
 * note (ms), result time (ms), job name.
 */
const lua = `
local function addStandard(KEYS, ARGV) ${addStandardJob.content} end
local function addDelayed(KEYS, ARGV) ${addDelayedJob.content} end
local function addPrioritized(KEYS, ARGV) ${addPrioritizedJob.content} end

local wait, paused, meta, counter, completed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local delayed, active, events, marker, prioritized, pc = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local owned, watchers = KEYS[12], KEYS[13]
local queue, id, data, now = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local delay, priority, depthLimit = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local resultMs = tonumber(ARGV[10])

local waiting = redis.call('LLEN', wait)
local depth = waiting + redis.call('ZCARD', prioritized) + redis.call('ZCARD', delayed)
if depth >= depthLimit then return {'full', depth} end

-- The place in the order of arrival becomes part of the data, so that a position can be told without a scan.
local seq = (tonumber(redis.call('GET', counter)) or 0) + 1
local opts = {}
if delay > 0 then opts.delay = delay end
if priority > 0 then opts.priority = priority end
local job = {cmsgpack.pack({queue, id, ARGV[11], now}), '{"q":' .. seq .. ',' .. string.sub(data, 2), cmsgpack.pack(opts)}
if delay > 0 then
  addDelayed({marker, meta, counter, delayed, completed, events}, job)
elseif priority > 0 then
  addPrioritized({marker, meta, counter, prioritized, delayed, completed, active, events, pc}, job)
else
  addStandard({wait, paused, meta, counter, completed, delayed, active, events, marker}, job)
end

redis.call('ZADD', owned, now, id)
redis.call('PEXPIRE', owned, resultMs + 604800000)
if ARGV[8] ~= '' then
  redis.call('SADD', watchers, ARGV[8])
  redis.call('PEXPIRE', watchers, ARGV[9])
end
return {'queued', waiting + 1}
`;

const script: Script = { name: "millraceAccept", lua };

export interface Acceptance {
  id: string;
  owner: string;
  /** A JSON object with at least one field; `q` is added to it. */
  dataJson: string;
  nowMs: number;
  delayMs: number;
  /** 0 in order of arrival; 1 (first) to 1000 (last) behind those. */
  priority: number;
  maxDepth: number;
  /** The API to tell of the end, when its caller waits. */
  watcher: { apiId: string; forMs: number } | null;
  resultTtlMs: number;
}

/** Accepts a prediction. Resolves to its estimated place in the queue, or to the depth that leaves no room. */
export async function acceptPrediction(
  redis: RedisClient,
  keys: ModelKeys,
  acceptance: Acceptance,
): Promise<{ accepted: true; position: number } | { accepted: false; depth: number }> {
  const { queue } = keys;
  const [outcome, count] = (await runScript(
    redis,
    script,
    [
      `${queue}wait`,
      `${queue}paused`,
      `${queue}meta`,
      `${queue}id`,
      `${queue}completed`,
      `${queue}delayed`,
      `${queue}active`,
      `${queue}events`,
      `${queue}marker`,
      `${queue}prioritized`,
      `${queue}pc`,
      keys.owned(acceptance.owner),
      keys.watchers(acceptance.id),
    ],
    [
      queue,
      acceptance.id,
      acceptance.dataJson,
      acceptance.nowMs,
      acceptance.delayMs,
      acceptance.priority,
      acceptance.maxDepth,
      acceptance.watcher?.apiId ?? "",
      acceptance.watcher?.forMs ?? 0,
      acceptance.resultTtlMs,
      predictionJobName,
    ],
  )) as [string, number];
  return outcome === "full" ? { accepted: false, depth: count } : { accepted: true, position: count };
}
