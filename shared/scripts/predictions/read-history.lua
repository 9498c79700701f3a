local note = redis.call('HGET', KEY.running, ARG.id)
local final = redis.call('EXISTS', KEY.result)
if note and final == 0 then
  redis.call('HDEL', KEY.running, ARG.id)
  if string.match(note, PATTERN.noteAlone) then redis.call('HINCRBY', KEY.deaths, ARG.id, 1) end
end
return {final, note, redis.call('HGET', KEY.deaths, ARG.id)}
