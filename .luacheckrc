-- For `luacheck shared api`. Names that scripts take from tables in TypeScript are put in when they are loaded
-- (`shared/scripts/lua/lua-text.ts`); functions of files that are included count as globals here.
std = "lua51"
max_line_length = 120
unused_args = false
read_globals = {
  -- Redis
  "KEYS", "ARGV", "redis", "cjson", "cmsgpack", "struct",
  -- Tables in TypeScript
  "KEY", "ITEMKEY", "ARG", "ITEM", "ITEMS", "KEYNAME", "BULLKEY", "FAIRKEY", "MARK", "BULL", "LAYOUT", "CONST",
  "LIST",
  -- Included functions
  "acceptAll", "addChunkJob", "bullAdd", "countRows", "deliver", "endBatch", "fairAdd", "fairClose", "fairKeys",
  "fairLoad", "fairNumber", "fairOpen", "fairShare", "fairTake", "fairText", "keepSent", "noteFailure", "sentBefore", "takeJobs",
}
