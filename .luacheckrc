-- For `luacheck shared api`. Names that scripts take from tables in TypeScript are put in when they are loaded
-- (`shared/scripts/lua/lua-text.ts`); functions of files that are included count as globals here.
std = "lua51"
max_line_length = 120
unused_args = false
-- `ITEM` reads the item that begins at `i`, `ITEMKEY` the key of item `n`.
ignore = { "211/i", "211/n", "213/i" }
read_globals = {
  -- Redis
  "KEYS", "ARGV", "redis", "cjson", "cmsgpack", "struct",
  -- Tables in TypeScript
  "KEY", "ITEMKEY", "ARG", "ITEM", "ITEMS", "KEYNAME", "BULLKEY", "FAIRKEY", "MARK", "BULL", "LAYOUT", "CONST",
  "LIST", "OUTCOME", "EVENT", "PATTERN",
  -- Included functions
  "acceptAll", "addChunkJob", "bullAdd", "countRows", "deliver", "endBatch", "fairAdd", "fairClose", "fairKeys",
  "fairLoad", "fairNumber", "fairOpen", "fairShare", "fairTake", "fairText", "keepSent",
  "noteFailure", "sentBefore", "takeJobs", "tell",
}

-- The functions of these are called by files that include them.
local included = { ignore = { "211", "211/i", "211/n", "213/i" } }
files["shared/scripts/batches/add-chunk-job.lua"] = included
files["shared/scripts/batches/end-batch.lua"] = included
files["shared/scripts/deliver.lua"] = included
files["shared/scripts/followers/tell-followers.lua"] = included
files["shared/scripts/predictions/note-failure.lua"] = included
files["shared/scripts/queue/accept-all.lua"] = included
files["shared/scripts/queue/bull-add.lua"] = included
files["shared/scripts/queue/fair-queue.lua"] = included
files["shared/scripts/queue/idempotency.lua"] = included
files["shared/scripts/queue/take-jobs.lua"] = included
