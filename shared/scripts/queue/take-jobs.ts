import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import { defineScript } from "../lua/define-script.js";
import { answers, number, text, unnamed } from "../lua/fields.js";

const takeScript = defineScript({
  name: "millraceTake",
  file: "queue/take",
  keys: { wait: unnamed(text("The queue's wait list; it sets the hash slot.")) },
  fields: {
    queue: text("Prefix of the queue's keys."),
    nowMs: number("The current time."),
    lockMs: number("Duration of the locks."),
    token: text("The lock token of all of them."),
    count: number("Limit of jobs to take."),
  },
  answer: answers<[jobs: TakenRaw[], nextDelayedAt: number] | null>("The jobs; null for a paused or limited queue."),
  whenFull: true,
});

/**
 * A taken job's hash, as fields and values in turn, and its id; or 0 for both, with the time of the next delayed job
 * (ms).
 */
export type TakenRaw = [job: string[] | 0, id: string | 0, rateLimitMs: number, nextDelayedAt: number];

/** Takes up to `count` jobs, all under one token; null where the queue is paused or limited. */
export async function takeJobs(
  redis: RedisClient,
  queue: string,
  { count, lockMs, nowMs, token }: { token: string; count: number; lockMs: number; nowMs: number },
): Promise<{ jobs: TakenRaw[]; nextDelayedAt: number } | null> {
  const taken = await takeScript.run(redis, {
    keys: { wait: `${queue}${bullKeys.wait}` },
    fields: { queue, nowMs, lockMs, token, count },
  });
  return taken === null ? null : { jobs: taken[0], nextDelayedAt: taken[1] };
}

const giveBackScript = defineScript({
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
  await giveBackScript.run(redis, { keys: { wait: `${queue}${bullKeys.wait}` }, fields: { queue }, each: jobs });
}
