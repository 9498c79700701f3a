-- Accepts predictions; see `accept.ts`. Reads `acceptFields` and `acceptEach` of the including step.
-- include queue/bull-add
-- include queue/fair-queue
-- include queue/idempotency
local queue, base, now = ARG.queue, ARG.base, tonumber(ARG.nowMs)
local resultMs, name = tonumber(ARG.resultTtlMs), ARG.jobName
local keepMs = resultMs + CONST.keptBeyondResultMs
local counter = queue .. BULLKEY.id
local line = fairOpen(queue)
local seq = tonumber(redis.call('GET', counter)) or 0
local answers, shares, places = {}, {}, {}

local units, load = {'jobs', 'rows', 'bytes'}, fairKeys(queue) .. FAIRKEY.load
local limits = {jobs = tonumber(ARG.jobsLimit), rows = tonumber(ARG.rowsLimit), bytes = tonumber(ARG.bytesLimit)}
local drain = redis.call('HMGET', load, 'rows', 'bytes', 'per_second', 'drained_since')
local inAll = {jobs = line.length + line.behind + redis.call('ZCARD', queue .. BULLKEY.delayed),
  rows = tonumber(drain[1]) or 0, bytes = tonumber(drain[2]) or 0}
local ofOwners = {}

-- Submissions joined to predictions count as jobs, too.
local joins = base .. KEYNAME.joins
local function joined(whose) return tonumber(redis.call('HGET', joins, '+' .. whose)) or 0 end
inAll.jobs = inAll.jobs + joined('')

local function loadOf(owner)
  local held = ofOwners[owner]
  if not held then
    local said = redis.call('HMGET', load, 'jobs:' .. owner, 'rows:' .. owner, 'bytes:' .. owner)
    held = {jobs = (tonumber(said[1]) or 0) + joined(owner), rows = tonumber(said[2]) or 0,
      bytes = tonumber(said[3]) or 0}
    ofOwners[owner] = held
  end
  return held
end

-- The exceeded limit, whose it is, the amount, its number of jobs, and the current rate of starts of all jobs a second.
local function full(owner)
  local perSecond = tonumber(drain[3]) or 0
  if now - (tonumber(drain[4]) or 0) > CONST.drainStaleMs then perSecond = 0 end
  local function excess(whose, held, part)
    for _, unit in ipairs(units) do
      if held[unit] >= limits[unit] * part then
        return {'full', unit, whose, held[unit], held.jobs, fairNumber(perSecond)}
      end
    end
  end
  local part = tonumber(ARG.ownerPart)
  return excess('all', inAll, 1) or part < 1 and excess('own', loadOf(owner), part) or nil
end

local function follow(i, target, joining)
  local interest = base .. KEYNAME.interest .. target
  -- Watchers come first, and each only once.
  local watcher = ITEM.watcher ~= '' and MARK.watcher .. ITEM.watcher
  if watcher and not (joining and redis.call('LPOS', interest, watcher, 'MAXLEN', CONST.mostWatchers)) then
    redis.call('LPUSH', interest, watcher)
  end
  if ITEM.follower ~= '' then
    redis.call('RPUSH', interest, MARK.follower .. ITEM.follower)
    -- Entries of watchers may expire, those of followers must not.
    if joining then redis.call('PERSIST', interest) end
    if ITEM.wantsStart == '1' then
      redis.call('SADD', base .. KEYNAME.starts, target)
      redis.call('EXPIRE', base .. KEYNAME.starts, CONST.followedStartsSeconds)
    end
  end
  if ITEM.idempotency ~= '' then
    local kept = target .. (joining and CONST.joinedMark or '')
    keepSent(base .. KEYNAME.idempotency .. ITEM.idempotency, ITEM.bodyHashes, kept)
  end
end

local function known(i)
  if ITEM.idempotency ~= '' then
    local same, target = sentBefore(base .. KEYNAME.idempotency .. ITEM.idempotency, ITEM.bodyHashes)
    if same ~= nil then return same and {'replayed', target} or {'mismatch', 0} end
  end
  if ITEM.dedup == '' then return nil end
  local held = redis.call('GET', base .. KEYNAME.dedup .. ITEM.dedup)
  if not held then return nil end
  local kind, rest = string.sub(held, 1, 1), string.sub(held, 2)
  if kind == MARK.cached then return {'cached', rest} end
  local job = redis.call('HMGET', queue .. rest, 'data', 'expires')
  if not job[1] or redis.call('EXISTS', base .. KEYNAME.result .. rest) == 1 then return nil end
  -- Jobs of earlier releases lack this field.
  local expires = job[2] or redis.call('ZSCORE', base .. KEYNAME.expiring, rest)
  if expires and tonumber(expires) <= now then return nil end
  local others = tonumber(string.match(redis.call('HGET', joins, rest) or '', '^%d+')) or 0
  if others >= tonumber(ARG.mostFollowers) then return nil end
  local refused = full(ITEM.owner)
  if refused then return refused end
  redis.call('HSET', joins, rest, (others + 1) .. ' ' .. ITEM.owner)
  for _, whose in ipairs({'', ITEM.owner}) do redis.call('HINCRBY', joins, '+' .. whose, 1) end
  for _, held in ipairs({inAll, loadOf(ITEM.owner)}) do held.jobs = held.jobs + 1 end
  follow(i, rest, true)
  return {'joined', rest}
end

local function index(owner, id)
  local owned = base .. KEYNAME.owned .. owner
  local before = redis.call('EXISTS', owned)
  redis.call('ZADD', owned, now, id)
  -- Now and then removes entries of expired predictions, faster than it grows, so that it never outgrows the readable
  -- ones.
  if before == 1 and seq % 32 ~= 0 then return end
  redis.call('PEXPIRE', owned, keepMs)
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', owned, '-inf', now - resultMs, 'LIMIT', 0, 64)) do
    if redis.call('EXISTS', base .. KEYNAME.result .. old) == 0 and redis.call('EXISTS', queue .. old) == 0 then
      redis.call('ZREM', owned, old)
    end
  end
end

-- Accepts every item; `answerFirst(i)`, if given, may answer one instead.
local function acceptAll(answerFirst)
  for i = ITEMS.first, #ARGV, ITEMS.size do
    local answer = answerFirst and answerFirst(i) or known(i)
    answer = answer or full(ITEM.owner)
    if not answer and ITEM.pieces ~= '0' then
      local blob = base .. KEYNAME.blob .. ITEM.id
      if redis.call('LLEN', blob) == tonumber(ITEM.pieces) then
        redis.call('PERSIST', blob)
      else
        answer = {'gone', 0}
      end
    end
    if not answer then
      local id, delay, priority = ITEM.id, tonumber(ITEM.delayMs), tonumber(ITEM.priority)
      seq = seq + 1
      local share = fairShare(ITEM.share)
      shares[#shares + 1] = share
      for _, held in ipairs({inAll, loadOf(share.owner)}) do
        held.jobs, held.rows, held.bytes = held.jobs + 1, held.rows + share.rows, held.bytes + share.bytes
      end
      -- APIs of an earlier release compute a position from the place in the order of arrival.
      local data = '{"q":' .. seq .. ',' .. ITEM.members
      if delay > 0 then
        bullAdd(queue, id, name, data, now, delay, priority)
        redis.call('HSET', queue .. id, 'priority', 0, 'share', ITEM.share)
      else
        local opts = priority > 0 and '{"priority":' .. priority .. '}' or '{}'
        redis.call('HSET', queue .. id, 'name', name, 'data', data, 'opts', opts, 'timestamp', ARG.nowMs, 'delay', 0,
          'priority', 0, 'share', ITEM.share)
        redis.call('INCR', counter)
        -- Jobs of other owners come in between, about as many of each; the number of owners is known at the end.
        places[#answers + 1] = fairAdd(line, id, share, seq)
      end
      index(ITEM.owner, id)
      if ITEM.expiresAtMs ~= '' then
        redis.call('HSET', queue .. id, 'expires', ITEM.expiresAtMs)
        redis.call('ZADD', base .. KEYNAME.expiring, ITEM.expiresAtMs, id)
      end
      if ITEM.dedup ~= '' then
        redis.call('SET', base .. KEYNAME.dedup .. ITEM.dedup, MARK.pending .. id, 'PX', keepMs)
      end
      follow(i, id, false)
      answer = {'queued', 0}
    end
    answers[#answers + 1] = answer
  end
  if #shares > 0 then fairLoad(queue, shares, 1) end
  if next(places) then
    fairClose(line)
    local owners = redis.call('ZCARD', line.fair .. FAIRKEY.owners)
    for i, place in pairs(places) do answers[i][2] = math.min((place - 1) * owners + 1, line.length + line.behind) end
    local meta = redis.call('HMGET', queue .. BULLKEY.meta, 'paused', 'concurrency')
    if not meta[1] and (not meta[2] or redis.call('LLEN', queue .. BULLKEY.active) < tonumber(meta[2])) then
      redis.call('ZADD', queue .. BULLKEY.marker, 0, '0')
    end
  end
  return answers
end
