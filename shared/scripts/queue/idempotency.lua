-- `sentBefore(key, hashes)` is nil where nothing was sent under the key, else whether it was the same body and, if so,
-- what came of it; `keepSent(key, hashes, target)` keeps that for a day. The hash of the sorted body is a key beside,
-- because APIs of an earlier release read the first one.
local function sentBefore(key, hashes)
  local said = redis.call('GET', key)
  if not said then return nil end
  local hash, target = string.match(said, '^(.-)|(.*)$')
  local own, sorted = string.match(hashes, '^([^,]*),?(.*)$')
  if sorted == '' then sorted = own end
  local same = hash == own or hash == sorted or redis.call('GET', key .. KEYNAME.sortedBody) == sorted
  return same, target
end
local function keepSent(key, hashes, target)
  local own, sorted = string.match(hashes, '^([^,]*),?(.*)$')
  redis.call('SET', key, own .. '|' .. target, 'EX', 86400)
  if sorted ~= '' then redis.call('SET', key .. KEYNAME.sortedBody, sorted, 'EX', 86400) end
end
