-- include queue/idempotency
-- include queue/bull-add
-- include batches/add-chunk-job
-- include deliver
-- include batches/end-batch
local id, now, base, queue, chunks = ARG.id, tonumber(ARG.nowMs), ARG.base, ARG.queue, tonumber(ARG.chunks)
local staged = {KEY.batch, KEY.chunks, KEY.lines, KEY.results, KEY.failed}
local function drop(kind, target)
  redis.call('UNLINK', unpack(staged))
  return {kind, target}
end
if ARG.bodyHashes ~= '' then
  local same, target = sentBefore(KEY.idempotency, ARG.bodyHashes)
  if same ~= nil then return drop(same and 'replayed' or 'mismatch', same and target or '') end
end
local early = redis.call('HMGET', KEY.batch, 'version', 'next', 'done', 'succeeded', 'failed', 'begun', 'bytes')
local next, done = tonumber(early[2] or 0), tonumber(early[3] or 0)
local ran = tonumber(early[4] or 0) + tonumber(early[5] or 0)
if early[1] and early[1] ~= ARG.version or chunks == 0 or redis.call('HLEN', KEY.chunks) ~= chunks - done
    or redis.call('HLEN', KEY.results) ~= done then
  return drop('lost', '')
end
if ARG.bodyHashes ~= '' then keepSent(KEY.idempotency, ARG.bodyHashes, id) end
for _, key in ipairs(staged) do redis.call('PERSIST', key) end
while next < chunks and next - done < CONST.windowChunks do
  addChunkJob(base, queue, id, next, ARG.nowMs, ARG.priority, ARG.owner, ARG.weight)
  next = next + 1
end
redis.call('HSET', KEY.batch, 'created', ARG.nowMs, 'chunks', ARG.chunks, 'total', ARG.lines, 'priority', ARG.priority,
  'succeeded', early[4] or 0, 'failed', early[5] or 0, 'done', done, 'next', next, 'version', ARG.version,
  'owner', ARG.owner, 'weight', ARG.weight, unpack(ARGV, ITEMS.first))
-- The start cannot lie before the batch's creation; its speed counts from the real start.
if early[6] then redis.call('HSET', KEY.batch, 'started', ARG.nowMs) end
-- Chunks that have run are counted off from 0.
local bytes = ARG.bytes + (tonumber(early[7]) or 0)
redis.call('HSET', KEY.batch, 'bytes', bytes)
countRows(base, ARG.owner, ARG.lines - ran, bytes)
redis.call('ZADD', KEY.owned, now, id)
redis.call('PEXPIRE', KEY.owned, ARG.resultTtlMs + CONST.keptBeyondResultMs)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEY.owned, '-inf', now - ARG.resultTtlMs, 'LIMIT', 0, 16)) do
  if redis.call('EXISTS', base .. KEYNAME.batch .. old) == 0 then redis.call('ZREM', KEY.owned, old) end
end
if ARG.follower ~= '' then redis.call('RPUSH', base .. KEYNAME.interest .. id, MARK.follower .. ARG.follower) end
if ARG.mostFailed ~= '' then redis.call('HSET', KEY.batch, 'most_failed', ARG.mostFailed) end
local tooMany = ARG.mostFailed ~= '' and tonumber(early[5] or 0) > tonumber(ARG.mostFailed)
if done == chunks or tooMany then
  local early = tooMany and 'failed' or nil
  endBatch(base, id, early, now, ARG.resultTtlMs, ARG.webhookQueue, ARG.noticeChannel, ARG.bodyStart)
end
return {'accepted', id, redis.call('HMGET', KEY.batch, LIST.batchFields)}
