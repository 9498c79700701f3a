import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import { defineScript } from "../lua/define-script.js";
import { number, text, unnamed } from "../lua/fields.js";

const script = defineScript({
  name: "millraceTake",
  file: "queue/take",
  keys: { wait: unnamed(text("The queue's wait list, which tells the slot.")) },
  fields: {
    queue: text("Prefix of the queue's keys."),
    nowMs: number("The present time."),
    lockMs: number("Duration of the locks."),
    token: text("The lock token of all of them."),
    count: number("Jobs to take at the most."),
  },
  whenFull: true,
});

/**
 * A taken job's hash, field and value in turn, and its id; or when the next delayed one is due (ms), with 0 for both.
 */
export type TakenRaw = [job: string[] | 0, id: string | 0, rateLimitMs: number, nextDelayedAt: number];

/** Takes up to `count` jobs, all under one token; null where the queue is paused or limited. */
export async function takeJobs(
  redis: RedisClient,
  queue: string,
  token: string,
  count: number,
  lockMs: number,
): Promise<{ jobs: TakenRaw[]; nextDelayedAt: number } | null> {
  const taken = (await script.run(redis, {
    keys: { wait: `${queue}${bullKeys.wait}` },
    fields: { queue, nowMs: Date.now(), lockMs, token, count },
  })) as [TakenRaw[], number] | null;
  return taken === null ? null : { jobs: taken[0], nextDelayedAt: taken[1] };
}
