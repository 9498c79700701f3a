local batch = redis.call('HMGET', KEY.batch, 'version', 'json', 'begun', 'owner', 'uploader')
if not batch[1] or batch[2] or redis.call('HEXISTS', KEY.results, ARG.number) == 1 then
  redis.call('HDEL', KEY.running, ARG.jobId)
  redis.call('HDEL', KEY.deaths, ARG.jobId)
  return false
end
return {batch[1], batch[4] or batch[5], batch[3] and 1 or 0}
