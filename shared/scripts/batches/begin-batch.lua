local batch = redis.call('HMGET', KEY.batch, 'version', 'json')
if batch[1] and not batch[2] and redis.call('HSETNX', KEY.batch, 'started', ARG.nowMs) == 1 then
  redis.call('HSET', KEY.batch, 'begun', ARG.nowMs)
end
return 1
