redis.call('HDEL', KEY.registry, '')
if ARG.changed == '1' or redis.call('HEXISTS', KEY.registry, ARG.model) == 0 then
  redis.call('HINCRBY', KEY.registry, ARG.model, 1)
end
return 1
