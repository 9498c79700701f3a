if KEY.result and redis.call('EXISTS', KEY.result) == 1 then return 0 end
-- Before all followers, so that those who look for watchers need not read them.
if not redis.call('LPOS', KEY.interest, ARG.entry, 'MAXLEN', CONST.mostWatchers)
    and redis.call('LPUSH', KEY.interest, ARG.entry) == 1 then
  redis.call('EXPIRE', KEY.interest, CONST.watchedSeconds)
end
if ARG.start == '1' then
  redis.call('SADD', KEY.starts, ARG.id)
  redis.call('EXPIRE', KEY.starts, CONST.watchedSeconds)
end
return 1
