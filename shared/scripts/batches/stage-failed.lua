local total, bytes = 0, 0
local n = redis.call('HLEN', KEY.chunks)
for i = ITEMS.first, #ARGV, ITEMS.size do
  local chunk = redis.call('HGET', KEY.failed, ITEM.number)
  if chunk then
    local lines = struct.unpack(LAYOUT.u32, chunk, LAYOUT.chunkLinesAt)
    redis.call('HSET', KEY.chunks, n, chunk)
    redis.call('SETRANGE', KEY.lines, LAYOUT.lineCountBytes * n, struct.pack(LAYOUT.u32, lines))
    n = n + 1
    total = total + lines
    bytes = bytes + #chunk
  end
end
redis.call('PEXPIRE', KEY.chunks, ARG.keepMs)
redis.call('PEXPIRE', KEY.lines, ARG.keepMs)
return {total, bytes}
