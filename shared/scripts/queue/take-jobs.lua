-- `takeJobs(queue, tokens, now, lockMs)` takes as many jobs as there are tokens. Returns a list of jobs in BullMQ's
-- form, and the time of the next delayed job (ms) if there were fewer. Nil for a paused or limited queue, which is left
-- to BullMQ's own taking, one by one.
-- include queue/fair-queue
local function takeJobs(queue, tokens, now, lockMs)
  local meta = redis.call('HMGET', queue .. BULLKEY.meta, 'paused', 'concurrency', 'max')
  if meta[1] or meta[2] or meta[3] then return nil end
  local wanted = #tokens
  local dueScore = (now + 1) * CONST.delayedScorePerMs - 1
  local due = redis.call('ZRANGEBYSCORE', queue .. BULLKEY.delayed, 0, dueScore, 'LIMIT', 0, CONST.promotedAtOnce)
  if #due > 0 then
    redis.call('ZREM', queue .. BULLKEY.delayed, unpack(due))
    local line = fairOpen(queue)
    for _, id in ipairs(due) do
      local share = redis.call('HGET', queue .. id, 'share')
      if share then
        fairAdd(line, id, fairShare(share), redis.call('INCR', queue .. BULLKEY.id))
      else
        redis.call('LPUSH', queue .. BULLKEY.wait, id)
      end
      redis.call('HSET', queue .. id, 'delay', 0)
    end
    fairClose(line)
  end
  local taken, hashes = fairTake(queue, wanted, now)
  if #taken > 0 then
    redis.call('LPUSH', queue .. BULLKEY.active, unpack(taken))
    -- Wakes others that may sleep while jobs wait.
    redis.call('ZADD', queue .. BULLKEY.marker, 0, '0')
  end
  local nextDelayed = 0
  if #taken < wanted then
    local head = redis.call('ZRANGE', queue .. BULLKEY.delayed, 0, 0, 'WITHSCORES')
    if head[2] then nextDelayed = tonumber(head[2]) / CONST.delayedScorePerMs end
  end
  local jobs = {}
  for k, id in ipairs(taken) do
    local key = queue .. id
    local job = hashes[k]
    local started = 0
    for f = 1, #job, 2 do if job[f] == 'ats' then started = tonumber(job[f + 1]) end end
    redis.call('SET', key .. BULLKEY.lock, tokens[k], 'PX', lockMs)
    redis.call('HSET', key, 'processedOn', now, 'ats', started + 1)
    for _, value in ipairs({'processedOn', tostring(now), 'ats', tostring(started + 1)}) do job[#job + 1] = value end
    jobs[k] = {job, id, 0, 0}
  end
  return jobs, nextDelayed
end
