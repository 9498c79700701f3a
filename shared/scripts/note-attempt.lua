if redis.call('EXISTS', KEY.delivery) == 0 then return 0 end
redis.call('RPUSH', KEY.attempts, ARG.attempt)
redis.call('LTRIM', KEY.attempts, -50, -1)
redis.call('HINCRBY', KEY.delivery, 'tries', 1)
local before = redis.call('HGET', KEY.delivery, 'state')
redis.call('HSET', KEY.delivery, 'state', ARG.state)
if ARG.state == 'pending' then
  redis.call('PEXPIRE', KEY.attempts, CONST.deliveryKeptMs)
else
  redis.call('PEXPIRE', KEY.delivery, ARG.resultTtlMs)
  redis.call('PEXPIRE', KEY.attempts, ARG.resultTtlMs)
  if before == 'pending' and redis.call('HINCRBY', KEY.body, 'open', -1) <= 0 then
    redis.call('PEXPIRE', KEY.body, ARG.resultTtlMs)
  end
  -- The list of deliveries expires with the last of them.
  for _, body in ipairs({KEY.body, KEY.started, KEY.completed}) do
    if (tonumber(redis.call('HGET', body, 'open')) or 0) > 0 then return 1 end
  end
  redis.call('PEXPIRE', KEY.deliveries, ARG.resultTtlMs)
end
return 1
