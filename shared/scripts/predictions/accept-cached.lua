-- include queue/bull-add
-- include deliver
-- include queue/idempotency
local id, now, base = ARG.id, tonumber(ARG.nowMs), ARG.base
if ARG.bodyHashes ~= '' then
  local same, target = sentBefore(KEY.idempotency, ARG.bodyHashes)
  if same ~= nil then return same and {'replayed', target} or {'mismatch', ''} end
  keepSent(KEY.idempotency, ARG.bodyHashes, id)
end
redis.call('SET', KEY.result, ARG.result, 'EX', ARG.resultTtlSeconds)
redis.call('ZADD', KEY.owned, now, id)
redis.call('PEXPIRE', KEY.owned, ARG.resultTtlSeconds * 1000 + CONST.keptBeyondResultMs)
if ARG.follower ~= '' then
  deliver(base, ARG.webhookQueue, id, {MARK.follower .. ARG.follower}, EVENT.predictionCompleted, ARG.webhookBody, now)
end
return {'accepted', id}
