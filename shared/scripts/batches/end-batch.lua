-- `endBatch(base, id, early status, now, result time in ms, webhook queue prefix, channel prefix, body start)` makes
-- the batch final and returns its JSON; `countRows(base, owner, rows, bytes)` counts rows of batches that are not done,
-- and bytes of their inputs. Needs `bullAdd` and `deliver`.
local function countRows(base, owner, rows, bytes)
  redis.call('INCRBY', base .. KEYNAME.bulkRows, rows)
  for name, amount in pairs({[KEYNAME.bulkRowsOf] = rows, [KEYNAME.bulkBytesOf] = bytes}) do
    if redis.call('HINCRBY', base .. name, owner, amount) <= 0 then redis.call('HDEL', base .. name, owner) end
  end
end
local function isoTime(ms)
  local days, rest = math.floor(ms / 86400000), ms % 86400000
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ"', year, month, day, math.floor(rest / 3600000),
    math.floor(rest / 60000) % 60, math.floor(rest / 1000) % 60, rest % 1000)
end
local function endBatch(base, id, early, now, resultMs, webhooks, channels, bodyStart)
  local key = base .. KEYNAME.batch .. id
  local batch = redis.call('HMGET', key, 'head', 'tail', 'total', 'succeeded', 'failed', 'created',
    'started', 'begun', 'owner', 'bytes')
  local total, succeeded, failed = tonumber(batch[3]), tonumber(batch[4]), tonumber(batch[5])
  local left = total - succeeded - failed
  local status = early or succeeded == total and 'succeeded'
    or succeeded == 0 and 'failed' or 'partial'
  local started = batch[7] and tonumber(batch[7])
  now = math.max(now, tonumber(batch[6]), started or 0)
  local perSecond = 0
  local begun = tonumber(batch[8] or batch[7] or now)
  if now > begun then perSecond = (succeeded + failed) * 1000 / (now - begun) end
  local json = batch[1] .. string.format('"status":"%s","counts":{"total":%d,"succeeded":%d,"failed":%d,' ..
    '"canceled":%d,"pending":0},"progress":%.4g,"created_at":%s,"started_at":%s,"finished_at":%s,' ..
    '"rows_per_second":%.10g,"eta_ms":null',
    status, total, succeeded, failed, left, math.floor((total - left) / total * 10000) / 10000,
    isoTime(tonumber(batch[6])), started and isoTime(started) or 'null', isoTime(now),
    math.floor(perSecond * 1000 + 0.5) / 1000) .. batch[2]
  redis.call('HSET', key, 'json', json, 'canceled', left)
  countRows(base, batch[9], 0 - left, 0 - (tonumber(batch[10]) or 0))
  local interest = redis.call('LRANGE', base .. KEYNAME.interest .. id, 0, -1)
  redis.call('UNLINK', base .. KEYNAME.batchChunks .. id, base .. KEYNAME.interest .. id)
  for _, name in ipairs({KEYNAME.batch, KEYNAME.batchLines, KEYNAME.batchResults, KEYNAME.batchFailed}) do
    redis.call('PEXPIRE', base .. name .. id, resultMs)
  end
  deliver(base, webhooks, id, interest, EVENT.batchCompleted, bodyStart .. json .. '}', now)
  for _, entry in ipairs(interest) do
    if string.sub(entry, 1, 1) == MARK.watcher then
      redis.call('PUBLISH', channels .. string.sub(entry, 2), id .. '\n')
    end
  end
  return json
end
