-- include queue/bull-add
-- include batches/add-chunk-job
-- include deliver
-- include batches/end-batch
local id, n, now, base, queue = ARG.id, ARG.number, tonumber(ARG.nowMs), ARG.base, ARG.queue
local job = id .. CONST.beforeChunk .. n
if redis.call('GET', queue .. job .. BULLKEY.lock) ~= ARG.token then return 'lost' end
redis.call('HDEL', base .. KEYNAME.running, job)
redis.call('HDEL', base .. KEYNAME.deaths, job)
local batch = redis.call('HMGET', KEY.batch, 'version', 'json', 'chunks', 'next', 'priority', 'staged', 'started',
  'owner', 'uploader', 'weight', 'most_failed', 'created')
if not batch[1] or batch[2] then return 'ended' end
now = math.max(now, tonumber(batch[12] or 0))
if not batch[7] then redis.call('HSET', KEY.batch, 'started', now, 'begun', now) end
if redis.call('HSETNX', KEY.results, n, ARG.outputs) == 0 then return 'done' end
local bytes = 0 - redis.call('HSTRLEN', KEY.chunks, n)
redis.call('HDEL', KEY.chunks, n)
redis.call('HINCRBY', KEY.batch, 'bytes', bytes)
if ARG.failedInputs ~= '' then redis.call('HSET', KEY.failed, n, ARG.failedInputs) end
redis.call('HINCRBY', KEY.batch, 'succeeded', ARG.succeeded)
local failed = redis.call('HINCRBY', KEY.batch, 'failed', ARG.failed)
local tooMany = batch[11] and failed > tonumber(batch[11])
local next, chunks = tonumber(batch[4]), tonumber(batch[3])
if next < (chunks or tonumber(batch[6])) and not tooMany then
  redis.call('HINCRBY', KEY.batch, 'next', 1)
  addChunkJob(base, queue, id, next, ARG.nowMs, batch[5], batch[8] or batch[9], batch[10] or 1)
end
local done = redis.call('HINCRBY', KEY.batch, 'done', 1)
if not chunks then
  local left = redis.call('PTTL', KEY.batch)
  for _, key in ipairs({KEY.results, KEY.failed}) do redis.call('PEXPIRE', key, left) end
  return 'written'
end
countRows(base, batch[8], 0 - ARG.succeeded - ARG.failed, bytes)
if done < chunks and not tooMany then return 'written' end
local early = tooMany and 'failed' or nil
endBatch(base, id, early, now, ARG.resultTtlMs, ARG.webhookQueue, ARG.noticeChannel, ARG.bodyStart)
return 'ended batch'
