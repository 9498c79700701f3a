local batch = redis.call('HMGET', KEY.batch, 'version', 'json', 'created')
-- Two processes measure the time of the store a little differently.
local at = math.max(tonumber(ARG.nowMs), tonumber(batch[3] or 0))
if batch[1] and not batch[2] and redis.call('HSETNX', KEY.batch, 'started', at) == 1 then
  redis.call('HSET', KEY.batch, 'begun', at)
end
return 1
