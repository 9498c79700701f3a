redis.call('LPUSH', KEY.history, redis.call('HGET', KEY.traffic, 'current') or ARG.automatic)
redis.call('LTRIM', KEY.history, 0, ARG.keptChanges - 1)
redis.call('HSET', KEY.traffic, 'current', ARG.traffic, 'changed', ARG.nowMs)
return redis.call('HINCRBY', KEY.traffic, 'revision', 1)
