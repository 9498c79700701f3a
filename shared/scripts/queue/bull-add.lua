-- `bullAdd(queue prefix, id, name, data, now, delay, priority)` adds a job as BullMQ does, for steps that must add one
-- together with something else; times in ms. The priority applies to delayed jobs only; see `fair-queue.lua` for
-- others. BullMQ's own scripts are embedded without changes: its version is pinned, and `test/queue/accept.test.ts`
-- compares the queue with one filled by BullMQ.
local function bullAddStandard(KEYS, ARGV)
-- include bullmq/add-standard-job
end
local function bullAddDelayed(KEYS, ARGV)
-- include bullmq/add-delayed-job
end
local function bullAdd(q, id, name, data, now, delay, priority)
  local opts = {}
  if delay > 0 then opts.delay = delay end
  if priority > 0 then opts.priority = priority end
  local job = {cmsgpack.pack({q, id, name, now}), data, cmsgpack.pack(opts)}
  if delay > 0 then
    bullAddDelayed({q .. BULLKEY.marker, q .. BULLKEY.meta, q .. BULLKEY.id, q .. BULLKEY.delayed,
      q .. BULLKEY.completed, q .. BULLKEY.events}, job)
  else
    bullAddStandard({q .. BULLKEY.wait, q .. BULLKEY.paused, q .. BULLKEY.meta, q .. BULLKEY.id,
      q .. BULLKEY.completed, q .. BULLKEY.delayed, q .. BULLKEY.active, q .. BULLKEY.events, q .. BULLKEY.marker}, job)
  end
end
