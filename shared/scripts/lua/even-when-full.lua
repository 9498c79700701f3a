-- A write that takes no memory. With no memory left, Redis checks only the first command of a step that may take some,
-- and no command after a write.
redis.call('DEL', KEY.any .. '~')
