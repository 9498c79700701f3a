for _, text in ipairs(redis.call('ZRANGE', KEY.breakers, 0, -1)) do
  local said = cjson.decode(text)
  if said.worker == ARG.worker and said.version == ARG.version then redis.call('ZREM', KEY.breakers, text) end
end
redis.call('ZREMRANGEBYSCORE', KEY.breakers, '-inf', ARG.nowMs)
if ARG.breaker ~= '' then redis.call('ZADD', KEY.breakers, ARG.holdsUntilMs, ARG.breaker) end
return 1
