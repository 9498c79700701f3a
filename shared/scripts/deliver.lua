-- `deliver(base, webhook queue prefix, prediction id, interest, event, body, now)` makes the deliveries of an event,
-- where `interest` holds the entries of the list `keys.interest`. Needs `bullAdd`.
local function deliver(base, queue, id, interest, event, body, now)
  local bodyKey = base .. KEYNAME.webhookBody .. id .. KEYNAME.beforeEvent .. event
  local made = 0
  for _, text in ipairs(interest) do
    local follower = string.sub(text, 1, 1) == MARK.follower and cjson.decode(string.sub(text, 2))
    local did = follower and follower.ids[event]
    local key = did and (base .. KEYNAME.delivery .. did)
    -- A delivery whose job still exists was made before, even without its record.
    if did and redis.call('EXISTS', key, queue .. did) == 0 then
      redis.call('HSET', key, 'owner', follower.owner, 'url', follower.url, 'event', event, 'prediction', id,
        'created', now, 'state', 'pending', 'tries', 0)
      redis.call('PEXPIRE', key, CONST.deliveryKeptMs)
      redis.call('RPUSH', base .. KEYNAME.deliveries .. id, did)
      bullAdd(queue, did, CONST.deliveryJobName, CONST.deliveryJobData, now, 0, 0)
      made = made + 1
    end
  end
  if made > 0 then
    redis.call('HSETNX', bodyKey, 'body', body)
    redis.call('HINCRBY', bodyKey, 'open', made)
    redis.call('PEXPIRE', bodyKey, CONST.deliveryKeptMs)
    redis.call('PEXPIRE', base .. KEYNAME.deliveries .. id, CONST.deliveryKeptMs)
  end
  return made
end
