if KEY.result and redis.call('EXISTS', KEY.result) == 1 then return 0 end
if not redis.call('LPOS', KEY.interest, ARG.entry) and redis.call('RPUSH', KEY.interest, ARG.entry) == 1 then
  redis.call('EXPIRE', KEY.interest, 86400)
end
if ARG.start == '1' then
  redis.call('SADD', KEY.starts, ARG.id)
  redis.call('EXPIRE', KEY.starts, 86400)
end
return 1
