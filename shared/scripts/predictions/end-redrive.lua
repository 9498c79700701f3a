if redis.call('HEXISTS', KEY.redrive, 'owner') == 0 or redis.call('HEXISTS', KEY.redrive, 'end') == 1 then return 0 end
redis.call('HSET', KEY.redrive, 'end', ARG.outcome, 'ended', ARG.nowMs)
redis.call('PEXPIRE', KEY.redrive, ARG.resultTtlMs)
redis.call('SREM', KEY.open, ARG.id)
for _, entry in ipairs(redis.call('LRANGE', KEY.interest, 0, -1)) do
  redis.call('PUBLISH', ARG.noticeChannel .. string.sub(entry, 2), ARG.id .. '\n')
end
redis.call('UNLINK', KEY.interest)
return 1
