import { predictionJobName } from "../../predictions/job.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { bullAddLua } from "./bullmq-add.js";
import { fairLua, shareText } from "./fair-queue.js";
import { type Idempotency, idempotencyHashes, idempotencyLua } from "./idempotency.js";
import { runScript, type Script } from "./script.js";

/**
 * Accepting predictions of one model is one step for as many as there are: for each, what was said under its
 * idempotency key, whether an identical one is on its way or cached, the depth limit, BullMQ's own job, the owner's
 * index and the notes of who waits and who is to be called come into being together or not at all.
 *
 * Jobs that are not delayed, which is nearly all of them, are added here as BullMQ 6.7 adds them, but for its event stream, which
 * nobody reads: it would be a third of the cost. `test/queue/accept.test.ts` holds that against a queue that BullMQ filled.
 * Where they wait and in which order they are taken is said in `fair-queue.ts`.
 *
 * KEYS: the model's wait list, which names the slot. ARGV: queue prefix, key base, now (ms), result time (ms), job name, limits of
 * what waits in jobs, rows and bytes, part of each that one owner may have; then for each prediction: id, data, delay
 * (ms), priority, API to tell or "", 1 where the follower wants to hear of the start, owner, deduplication hash or "",
 * idempotency key or "", hashes of the body sent with it, follower or "", pieces where the input is a blob, which must all
 * be there and are kept from now on, share.
 */
export const acceptLua = `
${bullAddLua}
${fairLua}
${idempotencyLua}
local queue, base, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local resultMs, name = tonumber(ARGV[4]), ARGV[5]
local keepMs = resultMs + 604800000
local counter = queue .. 'id'
local line = fairOpen(queue)
local seq = tonumber(redis.call('GET', counter)) or 0
local answers, shares, places = {}, {}, {}

local units, limits, load = {'jobs', 'rows', 'bytes'}, {}, fairKeys(queue) .. 'load'
for k, unit in ipairs(units) do limits[unit] = tonumber(ARGV[5 + k]) end
local drain = redis.call('HMGET', load, 'rows', 'bytes', 'per_second', 'drained_since')
local inAll = {jobs = line.length + line.behind + redis.call('ZCARD', queue .. 'delayed'), rows = tonumber(drain[1]) or 0, bytes = tonumber(drain[2]) or 0}
local ofOwners = {}

local function loadOf(owner)
  local held = ofOwners[owner]
  if not held then
    local said = redis.call('HMGET', load, 'jobs:' .. owner, 'rows:' .. owner, 'bytes:' .. owner)
    held = {jobs = tonumber(said[1]) or 0, rows = tonumber(said[2]) or 0, bytes = tonumber(said[3]) or 0}
    ofOwners[owner] = held
  end
  return held
end

-- What there is too much of, whose, how much, how many jobs that are, and how many of all are begun in a second by now.
local function full(owner)
  local perSecond = tonumber(drain[3]) or 0
  if now - (tonumber(drain[4]) or 0) > 10000 then perSecond = 0 end
  local function excess(whose, held, part)
    for _, unit in ipairs(units) do
      if held[unit] >= limits[unit] * part then
        return {'full', unit, whose, held[unit], held.jobs, fairNumber(perSecond)}
      end
    end
  end
  local part = tonumber(ARGV[9])
  return excess('all', inAll, 1) or part < 1 and excess('own', loadOf(owner), part) or nil
end

local function follow(i, target, joining)
  local interest = base .. '/interest:' .. target
  if ARGV[i + 4] ~= '' then redis.call('RPUSH', interest, 'w' .. ARGV[i + 4]) end
  if ARGV[i + 10] ~= '' then
    redis.call('RPUSH', interest, 'f' .. ARGV[i + 10])
    -- Watchers' notes may expire, a follower's never.
    if joining then redis.call('PERSIST', interest) end
    if ARGV[i + 5] == '1' then
      redis.call('SADD', base .. '/starts', target)
      redis.call('EXPIRE', base .. '/starts', 604800)
    end
  end
  if ARGV[i + 8] ~= '' then
    keepSent(base .. '/idempotency:' .. ARGV[i + 8], ARGV[i + 9], target .. (joining and '|j' or ''))
  end
end

local function expiry(data)
  return string.match(data, '^{"q":%d+,"v":1,"o":"[^"]*","ver":"[^"]*","e":(%d+)')
end

local function known(i)
  if ARGV[i + 8] ~= '' then
    local same, target = sentBefore(base .. '/idempotency:' .. ARGV[i + 8], ARGV[i + 9])
    if same ~= nil then return same and {'replayed', target} or {'mismatch', 0} end
  end
  if ARGV[i + 7] == '' then return nil end
  local held = redis.call('GET', base .. '/dedup:' .. ARGV[i + 7])
  if not held then return nil end
  local kind, rest = string.sub(held, 1, 1), string.sub(held, 2)
  if kind == 'c' then return {'cached', rest} end
  local data = redis.call('HGET', queue .. rest, 'data')
  if not data or redis.call('EXISTS', base .. '/result:' .. rest) == 1 then return nil end
  local expires = expiry(data)
  if expires and tonumber(expires) <= now then return nil end
  follow(i, rest, true)
  return {'joined', rest}
end

local function index(owner, id)
  local owned = base .. '/owned:' .. owner
  local before = redis.call('EXISTS', owned)
  redis.call('ZADD', owned, now, id)
  -- Now and then the index loses what is forgotten, faster than it grows, so that it never outgrows what can be read.
  if before == 1 and seq % 32 ~= 0 then return end
  redis.call('PEXPIRE', owned, keepMs)
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', owned, '-inf', now - resultMs, 'LIMIT', 0, 64)) do
    if redis.call('EXISTS', base .. '/result:' .. old) == 0 and redis.call('EXISTS', queue .. old) == 0 then
      redis.call('ZREM', owned, old)
    end
  end
end

for i = 10, #ARGV, 13 do
  local answer = known(i)
  answer = answer or full(ARGV[i + 6])
  if not answer and ARGV[i + 11] ~= '0' then
    local blob = base .. '/blob:' .. ARGV[i]
    if redis.call('LLEN', blob) == tonumber(ARGV[i + 11]) then redis.call('PERSIST', blob) else answer = {'gone', 0} end
  end
  if not answer then
    local id, delay, priority = ARGV[i], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
    seq = seq + 1
    local share = fairShare(ARGV[i + 12])
    shares[#shares + 1] = share
    for _, held in ipairs({inAll, loadOf(share.owner)}) do
      held.jobs, held.rows, held.bytes = held.jobs + 1, held.rows + share.rows, held.bytes + share.bytes
    end
    -- APIs of an earlier release tell a position by the place in the order of arrival.
    local data = '{"q":' .. seq .. ',' .. string.sub(ARGV[i + 1], 2)
    if delay > 0 then
      bullAdd(queue, id, name, data, now, delay, priority)
      redis.call('HSET', queue .. id, 'priority', 0, 'share', ARGV[i + 12])
    else
      local opts = priority > 0 and '{"priority":' .. priority .. '}' or '{}'
      redis.call('HSET', queue .. id, 'name', name, 'data', data, 'opts', opts, 'timestamp', ARGV[3], 'delay', 0,
        'priority', 0, 'share', ARGV[i + 12])
      redis.call('INCR', counter)
      -- Others' jobs come in between, of each owner about as many; who they are is known at the end.
      places[#answers + 1] = fairAdd(line, id, share, seq)
    end
    index(ARGV[i + 6], id)
    local expires = expiry(data)
    if expires then redis.call('ZADD', base .. '/expiring', expires, id) end
    if ARGV[i + 7] ~= '' then redis.call('SET', base .. '/dedup:' .. ARGV[i + 7], 'p' .. id, 'PX', keepMs) end
    follow(i, id, false)
    answer = {'queued', 0}
  end
  answers[#answers + 1] = answer
end
if #shares > 0 then fairLoad(queue, shares, 1) end
if next(places) then
  fairClose(line)
  local owners = redis.call('ZCARD', line.fair .. 'owners')
  for i, place in pairs(places) do answers[i][2] = math.min((place - 1) * owners + 1, line.length + line.behind) end
  local meta = redis.call('HMGET', queue .. 'meta', 'paused', 'concurrency')
  if not meta[1] and (not meta[2] or redis.call('LLEN', queue .. 'active') < tonumber(meta[2])) then
    redis.call('ZADD', queue .. 'marker', 0, '0')
  end
end
return answers
`;

const script: Script = { name: "millraceAccept", lua: acceptLua };

export interface Acceptance {
  id: string;
  owner: string;
  /** A JSON object with at least one field; `q` is added to it. */
  dataJson: string;
  delayMs: number;
  /** 0 in order of arrival; 1 (first) to 1000 (last) behind those. */
  priority: number;
  /** The API to tell of the end, when its caller waits. */
  watcher: string | null;
  /** What makes a submission identical to another; null: it is computed whatever others there are. */
  dedup: string | null;
  idempotency: Idempotency | null;
  /** Whom to call, and with which delivery ids; see `deliveries.ts`. */
  follower: { json: string; wantsStart: boolean } | null;
  /** Pieces of an input that is a blob under this id, sent before on this connection, and their bytes; see `blob.ts`. */
  pieces?: number;
  blobBytes?: number;
  /** Rows of the input; 1 unless told. */
  rows?: number;
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
  | { kind: "replayed"; id: string; joined: boolean }
  | { kind: "mismatch" }
  | { kind: "gone" }
  | ({ kind: "full" } & FullQueue);

/** What there is too much of, in the whole queue or of the owner's own. */
export interface FullQueue {
  unit: "jobs" | "rows" | "bytes";
  whose: "all" | "own";
  held: number;
  /** The jobs that make it up, and how many of the queue were begun a second lately; 0 where nothing was. */
  jobs: number;
  perSecond: number;
}

/** How much may wait for a model. */
export interface QueueLimits {
  jobs: number;
  rows: number;
  bytes: number;
  /** What part of each one owner may have, at most 1. */
  ownerPart: number;
}

/** What holds for everything that is accepted. */
export interface AcceptSettings {
  limits: QueueLimits;
  resultTtlMs: number;
  /** An owner's weight; 1 unless told. */
  weightOf?(owner: string): number;
}

/** Accepts predictions of one model, or says why they need no job of their own; outcomes in the order given. */
export async function acceptPredictions(
  redis: RedisClient,
  keys: ModelKeys,
  acceptances: readonly Acceptance[],
  settings: AcceptSettings & { nowMs: number },
): Promise<AcceptOutcome[]> {
  const { entries, head, keys: scriptKeys } = acceptArguments(keys, acceptances, settings);
  const answers = await runScript(redis, script, scriptKeys, [...head, ...entries.flat()]);
  return (answers as AcceptAnswer[]).map(acceptOutcome);
}

/** The keys and arguments of the step: what is said of all, and of each. */
export function acceptArguments(
  keys: ModelKeys,
  acceptances: readonly Acceptance[],
  { limits, nowMs, resultTtlMs, weightOf }: AcceptSettings & { nowMs: number },
): { keys: string[]; head: (string | number)[]; entries: (string | number)[][] } {
  const head = [keys.queue, keys.base, nowMs, resultTtlMs, predictionJobName];
  head.push(limits.jobs, limits.rows, limits.bytes, limits.ownerPart);
  const entries = acceptances.map((acceptance) => {
    const { dataJson, dedup, delayMs, follower, id, idempotency, owner, pieces, priority, watcher } = acceptance;
    const entry = [id, dataJson, delayMs, priority, watcher ?? "", follower?.wantsStart ? 1 : 0, owner, dedup ?? ""];
    entry.push(
      idempotency === null ? "" : keys.idempotencyName(owner, idempotency.key),
      idempotency === null ? "" : idempotencyHashes(idempotency),
    );
    const bytes = dataJson.length + (acceptance.blobBytes ?? 0);
    entry.push(follower?.json ?? "", pieces ?? 0);
    entry.push(shareText({ rows: acceptance.rows ?? 1, bytes, rank: priority, weight: weightOf?.(owner) ?? 1, owner }));
    return entry;
  });
  return { keys: [`${keys.queue}wait`], head, entries };
}

/** What the step answers for a prediction. */
export type AcceptAnswer = [kind: AcceptOutcome["kind"], value: never, ...more: never[]];

/** What an answer of the step says. */
export function acceptOutcome([kind, value, ...more]: AcceptAnswer): AcceptOutcome {
  if (kind === "queued") return { kind, position: value };
  if (kind === "joined") return { kind, id: value };
  if (kind === "replayed") return { kind, ...decodeReplayed(value) };
  if (kind === "cached") return { kind, outputJson: value };
  if (kind !== "full") return { kind };
  const [whose, held, jobs, perSecond] = more as unknown as ["all" | "own", number, number, string];
  return { kind, unit: value, whose, held, jobs, perSecond: Number(perSecond) };
}

/** What is kept under an idempotency key, after the hash: an id, and `|j` where that submission was joined. */
export function decodeReplayed(text: string): { id: string; joined: boolean } {
  return { id: text.replace("|j", ""), joined: text.endsWith("|j") };
}
