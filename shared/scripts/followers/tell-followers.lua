-- `tell(id, result, started)` tells the first watchers and followers of a final prediction of its end, and notes it in
-- `KEY.ending` where there are more, whom `millraceTellMore` tells: a step that tells all would take as long as callers
-- please, so one step tells no more followers than `toldAtOnce`, of all its predictions together. Returns whether there
-- are more. Reads `tellFields` of the including step. Needs `bullAdd` and `deliver`.
local mayTell = CONST.toldAtOnce
local function tell(id, text, started)
  local key = ARG.base .. KEYNAME.interest .. id
  local interest = redis.call('LRANGE', key, 0, CONST.toldAtOnce - 1)
  if #interest == 0 then return false end
  -- Those who watch are told in any case; they come first, and cost little.
  local told = 0
  for _, entry in ipairs(interest) do
    if string.sub(entry, 1, 1) ~= MARK.watcher then
      if mayTell == 0 then break end
      mayTell = mayTell - 1
    end
    told = told + 1
  end
  for n = told + 1, #interest do interest[n] = nil end
  redis.call('LTRIM', key, told, -1)
  redis.call('SREM', ARG.base .. KEYNAME.starts, id)
  -- The prediction's JSON is the second line of the stored result.
  local data = string.match(text, '\n(.*)$')
  local now = tonumber(ARG.nowMs)
  if started == '1' then
    deliver(ARG.base, ARG.webhookQueue, id, interest, EVENT.predictionStarted, ARG.startedStart .. data .. '}', now)
  end
  deliver(ARG.base, ARG.webhookQueue, id, interest, EVENT.predictionCompleted, ARG.completedStart .. data .. '}', now)
  local notice = id .. '\n'
  if #text <= tonumber(ARG.largestNoticeBytes) then notice = notice .. text end
  for _, entry in ipairs(interest) do
    if string.sub(entry, 1, 1) == MARK.watcher then
      redis.call('PUBLISH', ARG.noticeChannel .. string.sub(entry, 2), notice)
    end
  end
  if redis.call('EXISTS', key) == 0 then return false end
  redis.call('HSET', KEY.ending, id, started)
  return true
end
