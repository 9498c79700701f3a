-- include queue/bull-add
-- include deliver
local from = tonumber(ARG.from)
local interest = redis.call('LRANGE', ARG.base .. KEYNAME.interest .. ARG.id, from, from + CONST.toldAtOnce - 1)
deliver(ARG.base, ARG.webhookQueue, ARG.id, interest, EVENT.predictionStarted, ARG.body, tonumber(ARG.nowMs))
return #interest
