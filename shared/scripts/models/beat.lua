if #ARGV >= ITEMS.first then redis.call('ZADD', KEY.beats, unpack(ARGV, ITEMS.first)) end
return redis.call('ZREMRANGEBYSCORE', KEY.beats, '-inf', ARG.silentBeforeMs)
