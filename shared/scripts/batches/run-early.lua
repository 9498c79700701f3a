-- include batches/add-chunk-job
local n = tonumber(ARG.number)
if redis.call('HEXISTS', KEY.chunks, n) == 0 or redis.call('HEXISTS', KEY.batch, 'owner') == 1 then return 0 end
local batch = redis.call('HMGET', KEY.batch, 'next', 'done')
local next, done = tonumber(batch[1] or 0), tonumber(batch[2] or 0)
while next <= n and next - done < CONST.windowChunks do
  addChunkJob(ARG.base, ARG.queue, ARG.id, next, ARG.nowMs, ARG.priority, ARG.uploader, ARG.weight)
  next = next + 1
end
redis.call('HSET', KEY.batch, 'version', ARG.version, 'priority', ARG.priority, 'uploader', ARG.uploader,
  'weight', ARG.weight, 'staged', n + 1, 'next', next)
for _, key in ipairs({KEY.batch, KEY.results, KEY.failed}) do redis.call('PEXPIRE', key, ARG.keepMs) end
return 1
