import type { RedisClient } from "../connect-redis.js";
import { predictionJobName } from "../job.js";
import type { ModelKeys } from "../keys.js";
import { bullAddLua } from "./bullmq-add.js";
import { runScript, type Script } from "./script.js";

/**
 * Accepting a prediction is one step: what was said under this idempotency key, whether an identical one is on its way
 * or cached, the depth limit, BullMQ's own job, the owner's index and the notes of who waits and who is to be called
 * come into being together or not at all, in one round trip.
 *
 * ARGV: queue prefix, id, data, now (ms), delay (ms), priority, depth limit, API to tell or "", 1 where the follower wants
 * to hear of the start, result time (ms), job name, key base, deduplication hash or "", hash of the body sent with an
 * idempotency key or "", follower or "".
 */
const lua = `
${bullAddLua}
local delayed, prioritized, counter = KEYS[6], KEYS[10], KEYS[4]
local owned, dedupKey, idempotencyKey = KEYS[12], KEYS[13], KEYS[14]
local queue, id, data, now = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local delay, priority, depthLimit = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local keepMs = tonumber(ARGV[10]) + 604800000
local base, dedup, bodyHash, follower = ARGV[12], ARGV[13], ARGV[14], ARGV[15]

local function follow(target)
  local interest = base .. '/interest:' .. target
  if ARGV[8] ~= '' then redis.call('RPUSH', interest, 'w' .. ARGV[8]) end
  if follower ~= '' then
    redis.call('RPUSH', interest, 'f' .. follower)
    -- Watchers' notes may expire, a follower's never.
    redis.call('PERSIST', interest)
    if ARGV[9] == '1' then
      redis.call('SADD', base .. '/starts', target)
      redis.call('EXPIRE', base .. '/starts', 604800)
    end
  end
  if bodyHash ~= '' then redis.call('SET', idempotencyKey, bodyHash .. '|' .. target, 'EX', 86400) end
end

if bodyHash ~= '' then
  local said = redis.call('GET', idempotencyKey)
  if said then
    local hash, target = string.match(said, '^(.-)|(.*)$')
    if hash ~= bodyHash then return {'mismatch', 0} end
    return {'replayed', target}
  end
end

if dedup ~= '' then
  local held = redis.call('GET', dedupKey)
  if held then
    local kind, rest = string.sub(held, 1, 1), string.sub(held, 2)
    if kind == 'c' then return {'cached', rest} end
    if redis.call('EXISTS', base .. '/result:' .. rest) == 0 and redis.call('EXISTS', queue .. rest) == 1 then
      follow(rest)
      return {'joined', rest}
    end
  end
end

local waiting = redis.call('LLEN', KEYS[1])
local depth = waiting + redis.call('ZCARD', prioritized) + redis.call('ZCARD', delayed)
if depth >= depthLimit then return {'full', depth} end

-- The place in the order of arrival becomes part of the data, so that a position can be told without a scan.
local seq = (tonumber(redis.call('GET', counter)) or 0) + 1
bullAdd(queue, id, ARGV[11], '{"q":' .. seq .. ',' .. string.sub(data, 2), now, delay, priority)
local known = redis.call('EXISTS', owned) == 1
redis.call('ZADD', owned, now, id)
-- Now and then the index loses what is forgotten, faster than it grows, so that it never outgrows what can be read.
if not known or seq % 32 == 0 then
  redis.call('PEXPIRE', owned, keepMs)
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', owned, '-inf', now - tonumber(ARGV[10]), 'LIMIT', 0, 64)) do
    if redis.call('EXISTS', base .. '/result:' .. old) == 0 and redis.call('EXISTS', queue .. old) == 0 then
      redis.call('ZREM', owned, old)
    end
  end
end
if dedup ~= '' then redis.call('SET', dedupKey, 'p' .. id, 'PX', keepMs) end
follow(id)
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
  watcher: string | null;
  resultTtlMs: number;
  /** What makes a submission identical to another; null: it is computed whatever others there are. */
  dedup: string | null;
  idempotency: { key: string; bodyHash: string } | null;
  /** Whom to call, and with which delivery ids; see `deliveries.ts`. */
  follower: { json: string; wantsStart: boolean } | null;
}

/**
 * What became of a submission: `queued` anew; `joined` to an identical one that is not final; `cached`: nothing was
 * written yet, `outputJson` is the answer; `replayed`: this key was used for the same body before; `mismatch`: for
 * another body; `full`: there is no room.
 */
export type AcceptOutcome =
  | { kind: "queued"; position: number }
  | { kind: "joined"; id: string }
  | { kind: "cached"; outputJson: string }
  | { kind: "replayed"; id: string }
  | { kind: "mismatch" }
  | { kind: "full"; depth: number };

/** Accepts a prediction, or says why it needs no job of its own. */
export async function acceptPrediction(
  redis: RedisClient,
  keys: ModelKeys,
  acceptance: Acceptance,
): Promise<AcceptOutcome> {
  const { dedup, idempotency } = acceptance;
  const [kind, value] = (await runScript(
    redis,
    script,
    [
      ...queueKeys(keys.queue),
      keys.owned(acceptance.owner),
      keys.dedup(dedup ?? ""),
      keys.idempotency(acceptance.owner, idempotency?.key ?? ""),
    ],
    [
      keys.queue,
      acceptance.id,
      acceptance.dataJson,
      acceptance.nowMs,
      acceptance.delayMs,
      acceptance.priority,
      acceptance.maxDepth,
      acceptance.watcher ?? "",
      acceptance.follower?.wantsStart ? 1 : 0,
      acceptance.resultTtlMs,
      predictionJobName,
      keys.base,
      dedup ?? "",
      idempotency?.bodyHash ?? "",
      acceptance.follower?.json ?? "",
    ],
  )) as [AcceptOutcome["kind"], never];
  if (kind === "queued") return { kind, position: value };
  if (kind === "joined" || kind === "replayed") return { kind, id: value };
  if (kind === "cached") return { kind, outputJson: value };
  return kind === "full" ? { kind, depth: value } : { kind };
}

/** The keys that BullMQ's add scripts want, in the order of `bullAddLua`. */
const queueKeys = (queue: string): string[] =>
  ["wait", "paused", "meta", "id", "completed", "delayed", "active", "events", "marker", "prioritized", "pc"].map(
    (name) => queue + name,
  );
