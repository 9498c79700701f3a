if KEY.result and redis.call('EXISTS', KEY.result) == 1 then return 0 end
if not redis.call('LPOS', KEY.interest, ARG.entry) and redis.call('RPUSH', KEY.interest, ARG.entry) == 1 then
  redis.call('EXPIRE', KEY.interest, CONST.watchedSeconds)
end
if ARG.start == '1' then
  redis.call('SADD', KEY.starts, ARG.id)
  redis.call('EXPIRE', KEY.starts, CONST.watchedSeconds)
end
return 1
