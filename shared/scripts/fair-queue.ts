/** What a job weighs among those of its queue; the weight is its owner's. */
export interface Share {
  rows: number;
  bytes: number;
  /** 0 first, then 1 to 1000, among its owner's. */
  rank: number;
  weight: number;
  owner: string;
}

/** The place from which on jobs wait by priority, behind those that have none; BullMQ's own are below it too. */
export const behindByPriority = 2 ** 40;

/** A share as the steps read it. */
export const shareText = ({ bytes, owner, rank, rows, weight }: Share): string =>
  `${rows} ${bytes} ${rank} ${weight} ${owner}`;

/**
 * Lua: owners share a queue by weight, whatever their backlog. Jobs wait in BullMQ's own sorted set `prioritized`, so that its
 * counts and lists tell the truth; beside it, one sorted set an owner says in which order its jobs come, and one over the owners
 * who is next: start-time fair queueing (Goyal, Vin and Cheng, 1997), in which a job costs its rows divided by its owner's
 * weight, and an owner who was idle starts where the others are. What is not in `prioritized` any more is skipped,
 * and what is there alone comes last; so nothing is lost or run twice by these sets. No step costs more with more owners.
 *
 * A job of an owner has a field `share`: `<rows> <bytes> <rank> <weight> <owner>`; its own priority in BullMQ is 0, so that
 * whatever BullMQ puts back (a job whose worker died) goes to `wait`, which comes first.
 *
 * - `fairAdd(queue, id, place, owner)` lets a job wait at that place among its owner's; BullMQ's marker is the caller's.
 * - `fairPlace(rank, arrival)` is that place.
 * - `fairTake(queue, wanted, now)`: up to so many ids that are next, and their hashes as field and value in turn.
 * - `fairLoad(queue, shares, sign)` counts what waits of rows and bytes, in all and of each owner; `shares` are parsed.
 * - `fairShare(text)` parses a share.
 */
export const fairLua = `
local function fairKeys(queue) return (string.gsub(queue, '}:', '}/fair:', 1)) end
local function fairPlace(rank, arrival) return rank * ${behindByPriority} + arrival % ${behindByPriority} end
local function fairShare(text)
  local rows, bytes, rank, weight, owner = string.match(text, '^(%d+) (%d+) (%d+) ([%d.]+) (.*)$')
  return {rows = tonumber(rows), bytes = tonumber(bytes), rank = tonumber(rank), weight = tonumber(weight), owner = owner}
end
local function fairNumber(value) return string.format('%.17g', value) end

local function fairAdd(queue, id, place, owner)
  local fair = fairKeys(queue)
  redis.call('ZADD', queue .. 'prioritized', place, id)
  redis.call('ZADD', fair .. 'of:' .. owner, place, id)
  if redis.call('ZSCORE', fair .. 'owners', owner) then return end
  local now = tonumber(redis.call('HGET', fair .. 'load', 'served')) or 0
  local ahead = tonumber(redis.call('ZSCORE', fair .. 'ahead', owner)) or 0
  redis.call('ZADD', fair .. 'owners', fairNumber(math.max(now, ahead)), owner)
end

local function fairLoad(queue, shares, sign)
  local load = fairKeys(queue) .. 'load'
  local sums = {}
  local function add(field, amount) sums[field] = (sums[field] or 0) + sign * amount end
  for _, share in ipairs(shares) do
    add('rows', share.rows)
    add('bytes', share.bytes)
    add('jobs:' .. share.owner, 1)
    add('rows:' .. share.owner, share.rows)
    add('bytes:' .. share.owner, share.bytes)
  end
  for field, amount in pairs(sums) do
    if redis.call('HINCRBY', load, field, amount) <= 0 then redis.call('HDEL', load, field) end
  end
end

local function fairTake(queue, wanted, now)
  local fair = fairKeys(queue)
  local ids, jobs, begun = {}, {}, {}
  local function take(id)
    local job = redis.call('HGETALL', queue .. id)
    local share, started
    for f = 1, #job, 2 do
      if job[f] == 'share' then share = fairShare(job[f + 1]) elseif job[f] == 'ats' then started = tonumber(job[f + 1]) end
    end
    ids[#ids + 1] = id
    jobs[#jobs + 1] = job
    -- What was taken before does not wait for the first time, so it is not counted as waiting.
    if share and (started or 0) == 0 then begun[#begun + 1] = share end
    return share and share.rows / share.weight or 1
  end
  for _, id in ipairs(redis.call('RPOP', queue .. 'wait', wanted) or {}) do take(id) end

  local heads = {}
  if #ids < wanted then heads = redis.call('ZRANGE', fair .. 'owners', 0, wanted - #ids - 1, 'WITHSCORES') end
  local owners, passes, served = {}, {}, nil
  for k = 1, #heads, 2 do
    owners[#owners + 1] = heads[k]
    passes[#passes + 1] = tonumber(heads[k + 1])
  end
  local touched = {}
  while #ids < wanted and #owners > 0 do
    local first = 1
    for k = 2, #owners do if passes[k] < passes[first] then first = k end end
    local owner = owners[first]
    local set = fair .. 'of:' .. owner
    served = passes[first]
    local popped = redis.call('ZPOPMIN', set, #owners == 1 and wanted - #ids or 1)
    for k = 1, #popped, 2 do
      if redis.call('ZREM', queue .. 'prioritized', popped[k]) == 1 then
        served = passes[first]
        passes[first] = served + take(popped[k])
      end
    end
    touched[owner] = passes[first]
    if redis.call('EXISTS', set) == 0 then
      redis.call('ZREM', fair .. 'owners', owner)
      redis.call('ZADD', fair .. 'ahead', fairNumber(passes[first]), owner)
      touched[owner] = nil
      table.remove(owners, first)
      table.remove(passes, first)
    end
  end
  for owner, pass in pairs(touched) do redis.call('ZADD', fair .. 'owners', fairNumber(pass), owner) end
  if #begun > 0 then fairLoad(queue, begun, -1) end
  if served then
    redis.call('HSET', fair .. 'load', 'served', fairNumber(served))
    redis.call('ZREMRANGEBYSCORE', fair .. 'ahead', '-inf', fairNumber(served))
    local drain = redis.call('HMGET', fair .. 'load', 'drained', 'drained_since')
    local since = tonumber(drain[2])
    local drained = (tonumber(drain[1]) or 0) + #ids
    if since and now - since < 1000 then
      redis.call('HSET', fair .. 'load', 'drained', drained)
    else
      if since then redis.call('HSET', fair .. 'load', 'per_second', fairNumber(drained * 1000 / (now - since))) end
      redis.call('HSET', fair .. 'load', 'drained', 0, 'drained_since', now)
    end
  end
  if #ids < wanted then
    -- What a process of an earlier release added, which knew nothing of owners.
    local rest = redis.call('ZPOPMIN', queue .. 'prioritized', wanted - #ids)
    for k = 1, #rest, 2 do take(rest[k]) end
  end
  if #ids < wanted and redis.call('EXISTS', queue .. 'delayed') == 0 then
    -- Nothing waits, so that nobody is ahead of anybody.
    redis.call('UNLINK', fair .. 'load', fair .. 'ahead')
  end
  return ids, jobs
end
`;
