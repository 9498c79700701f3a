import { addDelayedJob } from "bullmq/dist/cjs/scripts/addDelayedJob-6.js";
import { addStandardJob } from "bullmq/dist/cjs/scripts/addStandardJob-9.js";

/**
 * A Lua function that adds a job as BullMQ does, for steps that must add one together with something else:
 * `bullAdd(queue prefix, id, name, data, now, delay, priority)`, times in ms; a priority only of one that is delayed, see
 * `fair-queue.ts` for others. BullMQ's own scripts run inside it word
 * for word; so its version is pinned, and `test/queue/accept.test.ts` holds the queue against one that BullMQ filled.
 */
export const bullAddLua = `
local function bullAddStandard(KEYS, ARGV) ${addStandardJob.content} end
local function bullAddDelayed(KEYS, ARGV) ${addDelayedJob.content} end
local function bullAdd(q, id, name, data, now, delay, priority)
  local opts = {}
  if delay > 0 then opts.delay = delay end
  if priority > 0 then opts.priority = priority end
  local job = {cmsgpack.pack({q, id, name, now}), data, cmsgpack.pack(opts)}
  if delay > 0 then
    bullAddDelayed({q .. 'marker', q .. 'meta', q .. 'id', q .. 'delayed', q .. 'completed', q .. 'events'}, job)
  else
    bullAddStandard({q .. 'wait', q .. 'paused', q .. 'meta', q .. 'id', q .. 'completed', q .. 'delayed',
      q .. 'active', q .. 'events', q .. 'marker'}, job)
  end
end
`;
