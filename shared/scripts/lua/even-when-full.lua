-- A write that takes no memory. With no memory left, Redis refuses a step at its first command that may take memory,
-- but none after a write.
redis.call('DEL', KEY.any .. KEYNAME.neverSet)
