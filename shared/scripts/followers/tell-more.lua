-- include queue/bull-add
-- include deliver
-- include followers/tell-followers
local started = redis.call('HGET', KEY.ending, ARG.id)
if not started then return 0 end
local text = redis.call('GET', KEY.result)
redis.call('HDEL', KEY.ending, ARG.id)
if text then return tell(ARG.id, text, started) and 1 or 0 end
redis.call('UNLINK', ARG.base .. KEYNAME.interest .. ARG.id)
return 0
