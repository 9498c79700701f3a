redis.call('ZREM', KEY.beats, ARG.worker .. '|' .. ARG.version)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEY.beats, ARG.nowMs, '+inf')) do
  if string.match(member, '|(.*)$') == ARG.version then return 0 end
end
return redis.call('HDEL', KEY.versions, ARG.version)
