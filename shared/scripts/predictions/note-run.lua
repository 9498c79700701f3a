local locks, held, notes, awaited = {}, {}, {}, {}
for i = ITEMS.first, #ARGV, ITEMS.size do locks[#locks + 1] = ARG.queue .. ITEM.id .. BULLKEY.lock end
locks = redis.call('MGET', unpack(locks))
for n, lock in ipairs(locks) do
  local i = ITEMS.first + ITEMS.size * (n - 1)
  if lock == ITEM.token then
    held[#held + 1] = ITEM.id
    notes[#notes + 1] = ITEM.id
    notes[#notes + 1] = ITEM.note
  end
end
if #held == 0 then return awaited end
redis.call('HSET', KEY.running, unpack(notes))
if redis.call('EXISTS', KEY.starts) == 0 then return awaited end
for _, id in ipairs(held) do
  if redis.call('SISMEMBER', KEY.starts, id) == 1 then
    awaited[#awaited + 1] = id
    for _, entry in ipairs(redis.call('LRANGE', ARG.base .. KEYNAME.interest .. id, 0, CONST.mostWatchers - 1)) do
      if string.sub(entry, 1, 1) ~= MARK.watcher then break end
      redis.call('PUBLISH', ARG.noticeChannel .. string.sub(entry, 2), id .. '\n')
    end
  end
end
return awaited
