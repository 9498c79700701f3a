local holder = redis.call('GET', KEY.lease)
if holder and holder ~= ARG.holder then return 0 end
-- Renewed only after half of its time, because every write may be an fsync.
if not holder or redis.call('PTTL', KEY.lease) < ARG.ttlMs / 2 then
  redis.call('SET', KEY.lease, ARG.holder, 'PX', ARG.ttlMs)
end
return 1
