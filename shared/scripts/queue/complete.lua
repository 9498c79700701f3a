-- include queue/take-jobs
local queue, now, lockMs = ARG.queue, tonumber(ARG.nowMs), ARG.lockMs
local active = queue .. BULLKEY.active
local answers, gone, freed, takers, tokens, lockKeys, kept = {}, {}, {}, {}, {}, {}, {}
local function isThere(proof, id)
  if proof == KEY.wait then return true end
  local chunk = string.match(id, PATTERN.chunkNumber)
  if chunk then return redis.call('HEXISTS', proof, chunk) == 1 end
  return redis.call('EXISTS', proof) == 1
end
for i = ITEMS.first, #ARGV, ITEMS.size do lockKeys[#lockKeys + 1] = queue .. ITEM.id .. BULLKEY.lock end
local locks = redis.call('MGET', unpack(lockKeys))
for i = ITEMS.first, #ARGV, ITEMS.size do
  local id, token = ITEM.id, ITEM.token
  local n = #answers + 1
  local code = 0
  if locks[n] ~= token then
    code = locks[n] and BULL.JobLockMismatch or BULL.JobLockNotExist
  elseif ITEM.outcome ~= OUTCOME.removed and redis.call('EXISTS', queue .. id) == 0 then
    code = BULL.JobNotExist
  elseif redis.call('LREM', active, -1, id) < 1 then
    code = BULL.JobNotInState
  else
    gone[#gone + 1] = lockKeys[n]
    freed[#freed + 1] = id
    if not isThere(ITEMKEY.proof, id) then
      redis.call('RPUSH', queue .. BULLKEY.wait, id)
      redis.call('ZADD', queue .. BULLKEY.marker, 0, '0')
    elseif ITEM.outcome ~= OUTCOME.removed then
      local failed = ITEM.outcome == OUTCOME.failed
      redis.call('HINCRBY', queue .. id, 'atm', 1)
      redis.call('HSET', queue .. id, failed and 'failedReason' or 'returnvalue', ITEM.text, 'finishedOn', now)
      local set = failed and BULLKEY.failed or BULLKEY.completed
      redis.call('ZADD', queue .. set, now, id)
      kept[set] = true
    else
      gone[#gone + 1] = queue .. id
    end
    if ITEM.takeNext == '1' then
      takers[#takers + 1] = n
      tokens[#tokens + 1] = token
    end
  end
  answers[n] = code
end
if #freed > 0 then
  redis.call('SREM', queue .. BULLKEY.stalled, unpack(freed))
  for set in pairs(kept) do
    local over = redis.call('ZCARD', queue .. set) - tonumber(ARG.keptJobs)
    if over > 0 then
      local oldest = redis.call('ZPOPMIN', queue .. set, over)
      for i = 1, #oldest, 2 do gone[#gone + 1] = queue .. oldest[i] end
    end
  end
  redis.call('UNLINK', unpack(gone))
end
if #takers == 0 then return answers end

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
