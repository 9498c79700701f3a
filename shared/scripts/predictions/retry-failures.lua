-- include queue/accept-all
local answers = acceptAll(function(i)
  if ARG.once == '1' and not redis.call('ZSCORE', KEY.failures, ITEM.failed) then return {'taken'} end
end)
local queued = {}
for n, answer in ipairs(answers) do
  local i = ITEMS.first + ITEMS.size * (n - 1)
  if answer[1] == 'queued' then queued[#queued + 1] = ITEM.failed end
end
if #queued > 0 then
  redis.call('ZREM', KEY.failures, unpack(queued))
  if ARG.counterSeconds ~= '0' then
    redis.call('INCRBY', KEY.counter, #queued)
    redis.call('EXPIRE', KEY.counter, ARG.counterSeconds)
  end
end
return answers
