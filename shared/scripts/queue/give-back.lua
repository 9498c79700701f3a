-- include queue/fair-queue
local queue = ARG.queue
for i = #ARGV - ITEMS.size + 1, ITEMS.first, -ITEMS.size do
  local id = ITEM.id
  if redis.call('GET', queue .. id .. BULLKEY.lock) == ITEM.token
      and redis.call('LREM', queue .. BULLKEY.active, -1, id) > 0 then
    redis.call('DEL', queue .. id .. BULLKEY.lock)
    redis.call('SREM', queue .. BULLKEY.stalled, id)
    local share = redis.call('HGET', queue .. id, 'share')
    if redis.call('HINCRBY', queue .. id, 'ats', -1) == 0 and share then fairLoad(queue, {fairShare(share)}, 1) end
    redis.call('RPUSH', queue .. BULLKEY.wait, id)
    redis.call('ZADD', queue .. BULLKEY.marker, 0, '0')
  end
end
return 1
