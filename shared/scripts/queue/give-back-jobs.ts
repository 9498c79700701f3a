import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import { defineScript } from "../lua/define-script.js";
import { text, unnamed } from "../lua/fields.js";

const script = defineScript({
  name: "millraceGiveBack",
  file: "queue/give-back",
  keys: { wait: unnamed(text("The queue's wait list; it sets the hash slot.")) },
  fields: { queue: text("Prefix of the queue's keys.") },
  each: { id: text("The job's id."), token: text("Its lock token; a job under another lock is left alone.") },
  whenFull: true,
});

/** Returns jobs that were taken but not started to the head of the queue, in their order. */
export async function giveBackJobs(
  redis: RedisClient,
  queue: string,
  jobs: readonly { id: string; token: string }[],
): Promise<void> {
  await script.run(redis, { keys: { wait: `${queue}${bullKeys.wait}` }, fields: { queue }, each: jobs });
}
