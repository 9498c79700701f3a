-- `noteFailure(failures key, id, now, result time in s)` records a failed prediction; see `failures.ts` for the rules.
local function noteFailure(failures, id, now, ttlSeconds)
  redis.call('ZADD', failures, now, id)
  redis.call('EXPIRE', failures, ttlSeconds)
  local old = redis.call('ZRANGEBYSCORE', failures, '-inf', now - ttlSeconds * 1000, 'LIMIT', 0, 64)
  if #old > 0 then redis.call('ZREM', failures, unpack(old)) end
end
