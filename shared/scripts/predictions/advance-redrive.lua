if redis.call('GET', KEY.lock) ~= ARG.token or redis.call('HEXISTS', KEY.redrive, 'end') == 1 then return 0 end
redis.call('HSETNX', KEY.redrive, 'started', ARG.nowMs)
if ARG.place ~= '' then redis.call('HSET', KEY.redrive, 'place', ARG.place) end
redis.call('HSET', KEY.redrive, 'paced', ARG.pacedUntilMs)
redis.call('HINCRBY', KEY.redrive, 'skipped', ARG.skipped)
return 1
