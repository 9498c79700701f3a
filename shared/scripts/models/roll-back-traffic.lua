if ARG.revision ~= '' and (redis.call('HGET', KEY.traffic, 'revision') or '0') ~= ARG.revision then return 'moved' end
local before = redis.call('LPOP', KEY.history)
if not before then return 'none' end
redis.call('HSET', KEY.traffic, 'current', before, 'changed', ARG.nowMs)
redis.call('HINCRBY', KEY.traffic, 'revision', 1)
return 'done'
