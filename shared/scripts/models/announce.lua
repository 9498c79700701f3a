local known = redis.call('HGET', KEY.versions, ARG.version)
local digest = known and cjson.decode(known).digest
local highest, served
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEY.beats, ARG.nowMs, '+inf')) do
  local worker, version = string.match(member, '^(.-)|(.*)$')
  if version == ARG.version then
    if digest and digest ~= ARG.digest and worker ~= ARG.worker then return {'conflict', digest} end
    served = served or worker ~= ARG.worker
  elseif not highest or tonumber(version) > highest then
    highest = tonumber(version)
  end
end
if not known and highest and tonumber(ARG.version) > highest then
  local split = redis.call('HGET', KEY.traffic, 'current')
  local set = split and cjson.decode(split)
  if not set or set.weights == cjson.null then
    -- An empty list would become an object.
    local shadow = set and #set.shadow > 0 and cjson.encode(set.shadow) or '[]'
    local before = '{"weights":{"' .. string.format('%d', highest) .. '":1},"shadow":' .. shadow .. '}'
    redis.call('LPUSH', KEY.trafficHistory, before)
    redis.call('LTRIM', KEY.trafficHistory, 0, ARG.keptChanges - 1)
    redis.call('HINCRBY', KEY.traffic, 'revision', 1)
    redis.call('HSET', KEY.traffic, 'changed', ARG.nowMs)
  end
end
if not served then redis.call('HDEL', KEY.unjoined, ARG.version) end
redis.call('HSETNX', KEY.meta, 'opts.maxLenEvents', ARG.keptEvents)
redis.call('ZADD', KEY.beats, ARG.aliveUntilMs, ARG.worker .. '|' .. ARG.version)
if known == ARG.announcement then return {'same'} end
redis.call('HSET', KEY.versions, ARG.version, ARG.announcement)
return {'new'}
