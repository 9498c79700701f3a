-- `addChunkJob(base, queue, batch id, chunk number, now, priority, owner, weight)` adds a chunk's job to those of its
-- owner, unless it exists; see `fair-queue.lua`.
-- include queue/fair-queue
local function addChunkJob(base, queue, id, n, now, priority, owner, weight)
  local job = id .. CONST.beforeChunk .. n
  if redis.call('EXISTS', queue .. job) == 1 then return end
  local from = LAYOUT.lineCountBytes * n
  local lines = redis.call('GETRANGE', base .. KEYNAME.batchLines .. id, from, from + LAYOUT.lineCountBytes - 1)
  local rows = #lines == LAYOUT.lineCountBytes and math.max(1, struct.unpack(LAYOUT.u32, lines)) or 1
  local text = fairText(rows, 0, priority, weight, owner)
  local share = fairShare(text)
  redis.call('HSET', queue .. job, 'name', CONST.chunkJobName, 'data', '{"v":1,"b":"' .. id .. '","n":' .. n .. '}',
    'opts', '{}', 'timestamp', now, 'delay', 0, 'priority', 0, 'share', text)
  local line = fairOpen(queue)
  fairAdd(line, job, share, redis.call('INCR', queue .. BULLKEY.id))
  fairClose(line)
  fairLoad(queue, {share}, 1)
  redis.call('ZADD', queue .. BULLKEY.marker, 0, '0')
end
