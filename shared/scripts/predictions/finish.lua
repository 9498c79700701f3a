-- include queue/bull-add
-- include deliver
-- include predictions/note-failure
-- include followers/tell-followers
local queue, base, now = ARG.queue, ARG.base, tonumber(ARG.nowMs)
local outcomes, ended, cached = {}, {}, {}
local locks = {}
for i = ITEMS.first, #ARGV, ITEMS.size do locks[#locks + 1] = queue .. ITEM.id .. BULLKEY.lock end
locks = redis.call('MGET', unpack(locks))
for i = ITEMS.first, #ARGV, ITEMS.size do
  local id, token, text, dedup = ITEM.id, ITEM.token, ITEM.result, ITEM.dedup
  local fenced = token ~= CONST.unbegunToken and token ~= CONST.anyToken
  local outcome
  if fenced and locks[#outcomes + 1] ~= token then
    outcome = 'lost'
    -- Drops the note of this run, unless the job's new worker has written its own.
    local note = redis.call('HGET', KEY.running, id)
    if note and string.match(note, PATTERN.noteWorker) == ARG.worker then redis.call('HDEL', KEY.running, id) end
  elseif token == CONST.unbegunToken and redis.call('HEXISTS', KEY.running, id) == 1 then
    outcome = 'running'
  elseif not fenced and redis.call('EXISTS', queue .. id) == 0 then
    outcome = 'final'
  elseif redis.call('SET', base .. KEYNAME.result .. id, text, 'EX', ARG.resultTtlSeconds, 'NX') then
    outcome = 'written'
    ended[#ended + 1] = id
    if ITEM.blob == 'drop' then
      redis.call('UNLINK', base .. KEYNAME.blob .. id)
    elseif ITEM.blob == 'keep' then
      redis.call('EXPIRE', base .. KEYNAME.blob .. id, ARG.resultTtlSeconds)
    end
    if ITEM.failures ~= '' then noteFailure(ITEM.failures, id, now, tonumber(ARG.resultTtlSeconds)) end
    if dedup ~= '' then
      local key = base .. KEYNAME.dedup .. dedup
      local before
      if ITEM.cacheSeconds ~= '0' then
        local from, length = tonumber(ITEM.outputFrom), tonumber(ITEM.outputBytes)
        local output = MARK.cached .. string.sub(text, from + 1, from + length)
        before = redis.call('SET', key, output, 'EX', ITEM.cacheSeconds, 'GET')
        cached[#cached + 1] = now
        cached[#cached + 1] = dedup
      else
        before = redis.call('GETDEL', key)
      end
      -- A key that has passed to another prediction stays with it; that takes a week of waiting.
      if before and before ~= MARK.pending .. id then redis.call('SET', key, before, 'EX', CONST.passedDedupSeconds) end
    end
    if tell(id, text, ITEM.started) then outcome = 'telling' end
    if not fenced then
      -- The worker that takes the job drops it without its data.
      redis.call('HSET', queue .. id, 'data', CONST.endedJobData)
      -- A worker that runs it loses the lock, so that it writes nothing even after this result has expired.
      redis.call('DEL', queue .. id .. BULLKEY.lock)
      redis.call('PUBLISH', ARG.cancelChannel, id)
    end
  else
    outcome = 'final'
    ended[#ended + 1] = id
  end
  outcomes[#outcomes + 1] = outcome
end
if #ended > 0 then
  if redis.call('EXISTS', KEY.joins) == 1 then
    for n, said in ipairs(redis.call('HMGET', KEY.joins, unpack(ended))) do
      local others, owner = string.match(said or '', '^(%d+) (.*)$')
      if others then
        redis.call('HDEL', KEY.joins, ended[n])
        for _, whose in ipairs({'+', '+' .. owner}) do
          if redis.call('HINCRBY', KEY.joins, whose, 0 - others) <= 0 then redis.call('HDEL', KEY.joins, whose) end
        end
      end
    end
  end
  redis.call('HDEL', KEY.running, unpack(ended))
  redis.call('HDEL', KEY.deaths, unpack(ended))
  redis.call('ZREM', base .. KEYNAME.expiring, unpack(ended))
end
if #cached > 0 then
  redis.call('ZADD', KEY.cache, unpack(cached))
  local over = redis.call('ZCARD', KEY.cache) - tonumber(ARG.cacheEntries)
  if over > 0 then
    local oldest = redis.call('ZPOPMIN', KEY.cache, over)
    for i = 1, #oldest, 2 do
      local key = base .. KEYNAME.dedup .. oldest[i]
      if redis.call('GETRANGE', key, 0, 0) == MARK.cached then redis.call('DEL', key) end
    end
  end
end
return outcomes
