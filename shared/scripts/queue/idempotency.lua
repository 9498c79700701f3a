-- `sentBefore(key, hashes)` is nil for an unused key, else whether the body was the same and, if so, the stored target;
-- `keepSent(key, hashes, target)` stores it for a day. The hash of the sorted body has a key of its own, because APIs
-- of an earlier release read the first one.
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
  redis.call('SET', key, own .. '|' .. target, 'EX', CONST.idempotencySeconds)
  if sorted ~= '' then redis.call('SET', key .. KEYNAME.sortedBody, sorted, 'EX', CONST.idempotencySeconds) end
end
