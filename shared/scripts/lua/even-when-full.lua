-- A write that takes no memory: Redis refuses the first command of a step that may take some when it has none left, and
-- none after a first write.
redis.call('DEL', KEY.any .. '~')
