-- include queue/bull-add
-- include queue/idempotency
local id, now, queue = ARG.id, tonumber(ARG.nowMs), ARG.queue
if ARG.bodyHashes ~= '' then
  local same, target = sentBefore(KEY.idempotency, ARG.bodyHashes)
  if same ~= nil then return same and {'replayed', target} or {'mismatch', ''} end
end
if redis.call('SCARD', KEY.open) >= tonumber(ARG.openAtMost) then return {'too many', ''} end
if ARG.bodyHashes ~= '' then keepSent(KEY.idempotency, ARG.bodyHashes, id) end
redis.call('HSET', KEY.redrive, 'owner', ARG.owner, 'created', ARG.nowMs, 'skipped', 0, 'plan', ARG.plan)
redis.call('SADD', KEY.open, id)
redis.call('ZADD', KEY.owned, now, id)
redis.call('ZREMRANGEBYRANK', KEY.owned, 0, -1 - CONST.listedRedrives)
redis.call('PEXPIRE', KEY.owned, 2 * ARG.resultTtlMs + CONST.keptBeyondResultMs)
redis.call('HSETNX', queue .. BULLKEY.meta, 'opts.maxLenEvents', CONST.keptEvents)
bullAdd(queue, id, CONST.redriveJobName, ARG.jobData, now, 0, 0)
return {'made', id}
