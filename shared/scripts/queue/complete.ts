import { keptJobs } from "../../predictions/job.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { fairLua } from "./fair-queue.js";
import { runScript, type Script } from "./script.js";

/**
 * Lua: `takeJobs(queue, tokens, now, lockMs)` takes as many jobs as there are tokens: a list of jobs as BullMQ hands them
 * out, and when the next delayed one is due (ms) where there were fewer. Nil where the queue is paused or limited, which is left
 * to BullMQ's own way of taking, one by one.
 */
const takeLua = `
${fairLua}
local function takeJobs(queue, tokens, now, lockMs)
  local meta = redis.call('HMGET', queue .. 'meta', 'paused', 'concurrency', 'max')
  if meta[1] or meta[2] or meta[3] then return nil end
  local wanted = #tokens
  local due = redis.call('ZRANGEBYSCORE', queue .. 'delayed', 0, (now + 1) * 0x1000 - 1, 'LIMIT', 0, 1000)
  if #due > 0 then
    redis.call('ZREM', queue .. 'delayed', unpack(due))
    local line = fairOpen(queue)
    for _, id in ipairs(due) do
      local share = redis.call('HGET', queue .. id, 'share')
      if share then
        fairAdd(line, id, fairShare(share), redis.call('INCR', queue .. 'id'))
      else
        redis.call('LPUSH', queue .. 'wait', id)
      end
      redis.call('HSET', queue .. id, 'delay', 0)
    end
    fairClose(line)
  end
  local taken, hashes = fairTake(queue, wanted, now)
  if #taken > 0 then
    redis.call('LPUSH', queue .. 'active', unpack(taken))
    -- Others may sleep while there is more.
    redis.call('ZADD', queue .. 'marker', 0, '0')
  end
  local nextDelayed = 0
  if #taken < wanted then
    local head = redis.call('ZRANGE', queue .. 'delayed', 0, 0, 'WITHSCORES')
    if head[2] then nextDelayed = tonumber(head[2]) / 0x1000 end
  end
  local jobs = {}
  for k, id in ipairs(taken) do
    local key = queue .. id
    local job = hashes[k]
    local started = 0
    for f = 1, #job, 2 do if job[f] == 'ats' then started = tonumber(job[f + 1]) end end
    redis.call('SET', key .. ':lock', tokens[k], 'PX', lockMs)
    redis.call('HSET', key, 'processedOn', now, 'ats', started + 1)
    for _, value in ipairs({'processedOn', tostring(now), 'ats', tostring(started + 1)}) do job[#job + 1] = value end
    jobs[k] = {job, id, 0, 0}
  end
  return jobs, nextDelayed
end
`;

/**
 * Ends jobs for BullMQ and takes as many next ones, all in one step. It does to the queue what BullMQ 6.7 does job by
 * job, but for the event stream, which nobody reads; ten or a hundred jobs end together here, because they ran together.
 * `test/queue/complete.test.ts` holds the queue against one that BullMQ worked off.
 *
 * A job goes only while what it led to is there: a master that took over may know of the job's lock and not of its result, and
 * then the job is given back.
 *
 * KEYS: wait; then for each job the key that what it led to is in, or wait where that need not be looked for. ARGV: queue
 * prefix, now (ms), lock (ms), jobs kept; then for each job: id, lock token, 1 to keep it visible, 2 as one that failed,
 * return value (JSON) or why it failed, 1 to take another. Returns for each: a code below 0 where the job is not ours, 0,
 * or {job, id, 0, when the next delayed job is due}.
 */
const lua = `
${takeLua}
local queue, now, lockMs = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local active = queue .. 'active'
local answers, gone, freed, takers, lockKeys, kept = {}, {}, {}, {}, {}, {}
local function isThere(proof, id)
  if proof == KEYS[1] then return true end
  local chunk = string.match(id, '%-(%d+)$')
  if chunk then return redis.call('HEXISTS', proof, chunk) == 1 end
  return redis.call('EXISTS', proof) == 1
end
for i = 5, #ARGV, 5 do lockKeys[#lockKeys + 1] = queue .. ARGV[i] .. ':lock' end
local locks = redis.call('MGET', unpack(lockKeys))
for i = 5, #ARGV, 5 do
  local id, token = ARGV[i], ARGV[i + 1]
  local n = #answers + 1
  local code = 0
  if locks[n] ~= token then
    code = locks[n] and -6 or -2
  elseif ARGV[i + 2] ~= '0' and redis.call('EXISTS', queue .. id) == 0 then
    code = -1
  elseif redis.call('LREM', active, -1, id) < 1 then
    code = -3
  else
    gone[#gone + 1] = lockKeys[n]
    freed[#freed + 1] = id
    if not isThere(KEYS[n + 1], id) then
      redis.call('RPUSH', queue .. 'wait', id)
      redis.call('ZADD', queue .. 'marker', 0, '0')
    elseif ARGV[i + 2] ~= '0' then
      local failed = ARGV[i + 2] == '2'
      redis.call('HINCRBY', queue .. id, 'atm', 1)
      redis.call('HSET', queue .. id, failed and 'failedReason' or 'returnvalue', ARGV[i + 3], 'finishedOn', now)
      local set = failed and 'failed' or 'completed'
      redis.call('ZADD', queue .. set, now, id)
      kept[set] = true
    else
      gone[#gone + 1] = queue .. id
    end
    if ARGV[i + 4] == '1' then takers[#takers + 1] = n end
  end
  answers[n] = code
end
if #freed > 0 then
  redis.call('SREM', queue .. 'stalled', unpack(freed))
  for set in pairs(kept) do
    local over = redis.call('ZCARD', queue .. set) - tonumber(ARGV[4])
    if over > 0 then
      local oldest = redis.call('ZPOPMIN', queue .. set, over)
      for i = 1, #oldest, 2 do gone[#gone + 1] = queue .. oldest[i] end
    end
  end
  redis.call('UNLINK', unpack(gone))
end
if #takers == 0 then return answers end

local tokens = {}
for k, n in ipairs(takers) do tokens[k] = ARGV[5 * n + 1] end
local jobs, nextDelayed = takeJobs(queue, tokens, now, lockMs)
if not jobs then return answers end
for k, n in ipairs(takers) do
  if jobs[k] then
    answers[n] = jobs[k]
  elseif nextDelayed > 0 then
    answers[n] = {0, 0, 0, nextDelayed}
  end
end
return answers
`;

const script: Script = { name: "millraceComplete", whenFull: true, lua };

export interface Completion {
  id: string;
  token: string;
  /** Whether it stays visible in the queue page, among the newest. */
  keep: boolean;
  returnValueJson: string;
  /** Why it failed, where it did; it stays visible then. */
  failedReason?: string | undefined;
  /**
   * The key that what it led to is in, without which it is given back instead; for a chunk's job a hash by chunk number. None where
   * there is nothing to look for.
   */
  proof?: string | null | undefined;
  /** Whether to take another job in its place, under the same token. */
  takeNext: boolean;
}

/** A taken job's hash, field and value in turn, and its id; or when the next delayed one is due (ms), with 0 for both. */
export type TakenRaw = [job: string[] | 0, id: string | 0, rateLimitMs: number, nextDelayedAt: number];

/** Ends jobs of one queue; for each, in order: a BullMQ error code below 0, 0, or the next job. */
export async function completeJobs(
  redis: RedisClient,
  queue: string,
  completions: readonly Completion[],
  lockMs: number,
): Promise<(number | TakenRaw)[]> {
  const args: (string | number)[] = [queue, Date.now(), lockMs, keptJobs];
  const scriptKeys = [`${queue}wait`];
  for (const { failedReason, id, keep, proof, returnValueJson, takeNext, token } of completions) {
    const [visible, outcome] = failedReason === undefined ? [keep ? 1 : 0, returnValueJson] : [2, failedReason];
    args.push(id, token, visible, outcome, takeNext ? 1 : 0);
    scriptKeys.push(proof ?? `${queue}wait`);
  }
  return (await runScript(redis, script, scriptKeys, args)) as (number | TakenRaw)[];
}

/** KEYS: wait. ARGV: queue prefix, now (ms), lock (ms), lock token, jobs. Returns the jobs, and when the next delayed one is due (ms). */
const takeScript: Script = {
  name: "millraceTake",
  whenFull: true,
  lua: `${takeLua}
local tokens = {}
for k = 1, tonumber(ARGV[5]) do tokens[k] = ARGV[4] end
local jobs, nextDelayed = takeJobs(ARGV[1], tokens, tonumber(ARGV[2]), ARGV[3])
if not jobs then return false end
return {jobs, nextDelayed}`,
};

/** Takes up to `count` jobs, all under one token; null where the queue is paused or limited. */
export async function takeJobs(
  redis: RedisClient,
  queue: string,
  token: string,
  count: number,
  lockMs: number,
): Promise<{ jobs: TakenRaw[]; nextDelayedAt: number } | null> {
  const args = [queue, Date.now(), lockMs, token, count];
  const taken = (await runScript(redis, takeScript, [`${queue}wait`], args)) as [TakenRaw[], number] | null;
  return taken === null ? null : { jobs: taken[0], nextDelayedAt: taken[1] };
}

/** KEYS: wait. ARGV: queue prefix, then id and lock token of each job. */
const giveBackScript: Script = {
  name: "millraceGiveBack",
  whenFull: true,
  lua: `${fairLua}
local queue = ARGV[1]
for i = #ARGV - 1, 2, -2 do
  local id = ARGV[i]
  if redis.call('GET', queue .. id .. ':lock') == ARGV[i + 1] and redis.call('LREM', queue .. 'active', -1, id) > 0 then
    redis.call('DEL', queue .. id .. ':lock')
    redis.call('SREM', queue .. 'stalled', id)
    local share = redis.call('HGET', queue .. id, 'share')
    if redis.call('HINCRBY', queue .. id, 'ats', -1) == 0 and share then fairLoad(queue, {fairShare(share)}, 1) end
    redis.call('RPUSH', queue .. 'wait', id)
    redis.call('ZADD', queue .. 'marker', 0, '0')
  end
end
return 1`,
};

/** Puts jobs that were taken and never begun back to where they are taken next, in their order. */
export async function giveBackJobs(
  redis: RedisClient,
  queue: string,
  jobs: readonly { id: string; token: string }[],
): Promise<void> {
  const args = [queue, ...jobs.flatMap(({ id, token }) => [id, token])];
  await runScript(redis, giveBackScript, [`${queue}wait`], args);
}
