-- Owners share a queue by weight, whatever their backlog. The order follows start-time fair queueing (Goyal, Vin and
-- Cheng, 1996): a job costs its rows divided by its owner's weight, and an owner that was idle starts at the present
-- position of the others. No step costs more with more owners.
--
-- Jobs wait where BullMQ looks for them, so that its counts and lists are right. The jobs without a priority of one
-- owner (mostly there is only one) are in the list `wait`. All others are in the sorted set `prioritized`, and beside
-- it in a sorted set of their owner, which defines their order. A job that is only in its owner's set is skipped, and a
-- job that is only in `prioritized` comes last; so no job is lost or run twice because of these sets.
--
-- A job has a field `share`: `<rows> <bytes> <rank> <weight> <owner>`, and `lane`, its number in the list. Its priority
-- in BullMQ is 0, so that a job returned by BullMQ (after its worker died) goes to the list's head.
--
-- - `fairShare(text)` parses a share, `fairText(rows, bytes, rank, weight, owner)` writes one, as `accept.ts` does.
-- - `fairOpen(queue)` begins to add; `fairAdd(line, id, share, arrival)` adds a job, whose hash exists, and returns
--   about the number of jobs up to and including it; `fairClose(line)` writes the additions, and must be called.
--   BullMQ's marker is left to the caller.
-- - `fairTake(queue, wanted, now)`: up to `wanted` next ids, and their hashes as fields and values in turn.
-- - `fairLoad(queue, shares, sign)` counts waiting rows and bytes, in total and for each owner.
local function fairKeys(queue) return (string.gsub(queue, KEYNAME.tagToQueue, KEYNAME.tagToFair, 1)) end
local function fairNumber(value) return string.format('%.17g', value) end
local function fairText(rows, bytes, rank, weight, owner)
  return rows .. ' ' .. bytes .. ' ' .. rank .. ' ' .. weight .. ' ' .. owner
end
local function fairShare(text)
  local rows, bytes, rank, weight, owner = string.match(text, '^(%d+) (%d+) (%d+) ([%d.]+) (.*)$')
  return {rows = tonumber(rows), bytes = tonumber(bytes), rank = tonumber(rank), weight = tonumber(weight),
    owner = owner}
end

local function fairOpen(queue)
  local fair = fairKeys(queue)
  local said = redis.call('HMGET', fair .. FAIRKEY.load, 'lane', 'lane_in')
  local length = redis.call('LLEN', queue .. BULLKEY.wait)
  -- The owner of the list keeps it until it is empty.
  return {queue = queue, fair = fair, lane = length > 0 and said[1], laneIn = tonumber(said[2]) or 0, length = length,
    behind = redis.call('ZCARD', queue .. BULLKEY.prioritized), added = {}, owners = {}}
end

local function fairAdd(line, id, share, arrival)
  local owner = line.owners[share.owner]
  if not owner then
    -- An owner's jobs without a priority are all in one place, or they would lose their order.
    local first = redis.call('ZRANGE', line.fair .. FAIRKEY.of .. share.owner, 0, 0, 'WITHSCORES')[2]
    owner = {inSet = first and tonumber(first) < CONST.behindByPriority}
    line.owners[share.owner] = owner
  end
  if share.rank == 0 and not owner.inSet and (line.length == 0 or line.lane == share.owner) then
    if line.lane ~= share.owner then line.lane, line.laneIn, line.claimed = share.owner, 0, true end
    line.laneIn, line.length = line.laneIn + 1, line.length + 1
    line.added[#line.added + 1] = id
    redis.call('HSET', line.queue .. id, 'lane', line.laneIn)
    return line.length
  end
  owner.inSet = owner.inSet or share.rank == 0
  line.behind = line.behind + 1
  local place = share.rank * CONST.behindByPriority + arrival % CONST.behindByPriority
  redis.call('ZADD', line.queue .. BULLKEY.prioritized, place, id)
  redis.call('ZADD', line.fair .. FAIRKEY.of .. share.owner, place, id)
  return redis.call('ZCARD', line.fair .. FAIRKEY.of .. share.owner)
end

local function fairClose(line)
  if #line.added > 0 then
    redis.call('LPUSH', line.queue .. BULLKEY.wait, unpack(line.added))
    redis.call('HSET', line.fair .. FAIRKEY.load, 'lane', line.lane, 'lane_in', line.laneIn)
  end
  for owner in pairs(line.owners) do
    if not redis.call('ZSCORE', line.fair .. FAIRKEY.owners, owner) then
      local now = tonumber(redis.call('HGET', line.fair .. FAIRKEY.load, 'served')) or 0
      local ahead = tonumber(redis.call('ZSCORE', line.fair .. FAIRKEY.ahead, owner)) or 0
      redis.call('ZADD', line.fair .. FAIRKEY.owners, fairNumber(math.max(now, ahead)), owner)
    end
  end
end

local function fairLoad(queue, shares, sign)
  local load, sums = fairKeys(queue) .. FAIRKEY.load, {}
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
  local fair, wait = fairKeys(queue), queue .. BULLKEY.wait
  local ids, jobs, begun = {}, {}, {}
  -- Returns the job's cost: 0 for a job that was taken before, which has paid and did not count as waiting again.
  local function take(id)
    local job = redis.call('HGETALL', queue .. id)
    local share, started
    for f = 1, #job, 2 do
      if job[f] == 'share' then
        share = fairShare(job[f + 1])
      elseif job[f] == 'ats' then
        started = tonumber(job[f + 1])
      end
    end
    ids[#ids + 1] = id
    jobs[#jobs + 1] = job
    if not share then return 1 end
    if (started or 0) > 0 then return 0 end
    begun[#begun + 1] = share
    return share.rows / share.weight
  end

  local length = redis.call('LLEN', wait)
  local lane = length > 0 and redis.call('HGET', fair .. FAIRKEY.load, 'lane')
  if length > 0 and not (lane and redis.call('ZSCORE', fair .. FAIRKEY.owners, lane)) then
    -- The list holds only returned jobs, or jobs of an earlier release.
    for _, id in ipairs(redis.call('RPOP', wait, wanted)) do take(id) end
    length = length - #ids
  end
  local heads = {}
  if #ids < wanted then heads = redis.call('ZRANGE', fair .. FAIRKEY.owners, 0, wanted - #ids - 1, 'WITHSCORES') end
  local owners, passes, touched, served = {}, {}, {}, nil
  for k = 1, #heads, 2 do
    owners[#owners + 1] = heads[k]
    passes[#passes + 1] = tonumber(heads[k + 1])
  end
  while #ids < wanted and #owners > 0 do
    local first = 1
    for k = 2, #owners do if passes[k] < passes[first] then first = k end end
    local owner, set = owners[first], fair .. FAIRKEY.of .. owners[first]
    local count = #owners == 1 and wanted - #ids or 1
    local function run(id)
      served = passes[first]
      passes[first] = served + take(id)
    end
    if owner == lane and length > 0 then
      for _, id in ipairs(redis.call('RPOP', wait, count)) do
        length = length - 1
        run(id)
      end
    else
      local popped = redis.call('ZPOPMIN', set, count)
      for k = 1, #popped, 2 do
        if redis.call('ZREM', queue .. BULLKEY.prioritized, popped[k]) == 1 then run(popped[k]) end
      end
    end
    touched[owner] = passes[first]
    if (owner ~= lane or length == 0) and redis.call('EXISTS', set) == 0 then
      redis.call('ZREM', fair .. FAIRKEY.owners, owner)
      redis.call('ZADD', fair .. FAIRKEY.ahead, fairNumber(passes[first]), owner)
      touched[owner] = nil
      table.remove(owners, first)
      table.remove(passes, first)
    end
  end
  if #ids < wanted then
    -- Jobs added by a process of an earlier release, which has no owners.
    local rest = redis.call('ZPOPMIN', queue .. BULLKEY.prioritized, wanted - #ids)
    for k = 1, #rest, 2 do take(rest[k]) end
    if #ids < wanted and redis.call('EXISTS', queue .. BULLKEY.delayed) == 0 then
      -- Nothing waits, so no owner is ahead of another, and there is no load to report.
      redis.call('UNLINK', fair .. FAIRKEY.load, fair .. FAIRKEY.ahead)
      return ids, jobs
    end
  end
  for owner, pass in pairs(touched) do redis.call('ZADD', fair .. FAIRKEY.owners, fairNumber(pass), owner) end
  if #begun > 0 then fairLoad(queue, begun, -1) end
  if not served then return ids, jobs end
  redis.call('ZREMRANGEBYSCORE', fair .. FAIRKEY.ahead, '-inf', fairNumber(served))
  local drain = redis.call('HMGET', fair .. FAIRKEY.load, 'drained', 'drained_rows', 'drained_since')
  local since, drained, rows = tonumber(drain[3]), (tonumber(drain[1]) or 0) + #ids, tonumber(drain[2]) or 0
  for _, share in ipairs(begun) do rows = rows + share.rows end
  if since and now - since < CONST.drainWindowMs then
    redis.call('HSET', fair .. FAIRKEY.load, 'served', fairNumber(served), 'drained', drained, 'drained_rows', rows)
  else
    if since then
      redis.call('HSET', fair .. FAIRKEY.load, 'per_second', fairNumber(drained * 1000 / (now - since)),
        'rows_per_second', fairNumber(rows * 1000 / (now - since)))
    end
    redis.call('HSET', fair .. FAIRKEY.load, 'served', fairNumber(served), 'drained', 0, 'drained_rows', 0,
      'drained_since', now)
  end
  return ids, jobs
end
