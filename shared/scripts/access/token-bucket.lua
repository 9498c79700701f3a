local cost, limit, window = tonumber(ARG.cost), tonumber(ARG.limit), 1000 * tonumber(ARG.windowSeconds)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local used = 0
local kept = redis.call('GET', KEY.bucket)
if kept then
  local before, at = string.match(kept, '^([^@]+)@(.+)$')
  used = math.max(0, tonumber(before) - (now - tonumber(at)) * limit / window)
end
if used + cost > limit then
  return {limit + 1 + math.ceil(used), math.ceil((used + cost - limit) * window / limit)}
end
used = used + cost
local free = math.ceil(used * window / limit)
if cost > 0 then redis.call('SET', KEY.bucket, string.format('%.3f@%.0f', used, now), 'PX', free + 1000) end
return {math.ceil(used), free}
