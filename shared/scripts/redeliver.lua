-- include queue/bull-add
if redis.call('HGET', KEY.delivery, 'owner') ~= ARG.owner or redis.call('HEXISTS', KEY.body, 'body') == 0 then
  return 'unknown'
end
if redis.call('HGET', KEY.delivery, 'state') == 'pending' then return 'pending' end
local times = redis.call('HINCRBY', KEY.delivery, 'redelivered', 1)
redis.call('HSET', KEY.delivery, 'state', 'pending')
redis.call('HINCRBY', KEY.body, 'open', 1)
redis.call('PEXPIRE', KEY.delivery, CONST.deliveryKeptMs)
redis.call('PEXPIRE', KEY.body, CONST.deliveryKeptMs)
redis.call('PEXPIRE', KEY.deliveries, CONST.deliveryKeptMs)
bullAdd(ARG.webhookQueue, ARG.id .. CONST.beforeRedelivery .. times, CONST.deliveryJobName, CONST.deliveryJobData,
  tonumber(ARG.nowMs), 0, 0)
return 'queued'
