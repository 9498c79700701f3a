-- include queue/bull-add
-- include deliver
-- include batches/end-batch
local batch = redis.call('HMGET', KEY.batch, 'owner', 'json')
if not batch[1] or batch[2] then return false end
return endBatch(ARG.base, ARG.id, 'canceled', tonumber(ARG.nowMs), ARG.resultTtlMs, ARG.webhookQueue,
  ARG.noticeChannel, ARG.bodyStart)
