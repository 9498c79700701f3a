-- include queue/bull-add
-- include deliver
local interest = redis.call('LRANGE', ARG.base .. KEYNAME.interest .. ARG.id, 0, -1)
return deliver(ARG.base, ARG.webhookQueue, ARG.id, interest, EVENT.predictionStarted, ARG.body, tonumber(ARG.nowMs))
