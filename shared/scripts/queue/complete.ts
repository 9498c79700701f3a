import { keptJobs } from "../../predictions/job.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import { defineScript } from "../lua/define-script.js";
import { flag, number, text } from "../lua/fields.js";
import type { TakenRaw } from "./take-jobs.js";

/**
 * Ends jobs for BullMQ and takes as many next ones, all in one step. It does to the queue what BullMQ 6.7 does job by
 * job, but for the event stream, which nobody reads; ten or a hundred jobs end together here, because they ran
 * together. `test/queue/complete.test.ts` holds the queue against one that BullMQ worked off.
 *
 * A job goes only while what it led to is there: a master that took over may know of the job's lock and not of its
 * result, and then the job is given back.
 *
 * For each job the step answers with one of `bullmqErrors` where the job is not ours, with 0, or with `{job, id, 0,
 * when the next delayed job is due}`.
 */
const script = defineScript({
  name: "millraceComplete",
  file: "queue/complete",
  keys: { wait: text("The queue's wait list.") },
  fields: {
    queue: text("Prefix of the queue's keys."),
    nowMs: number("Time of the end."),
    lockMs: number("Duration of the locks of the jobs that are taken."),
    keptJobs: number("Jobs that stay visible, of each state."),
  },
  each: {
    id: text("The job's id."),
    token: text("Its lock token."),
    outcome: number("0: it ends and goes; 1: it stays visible; 2: it stays visible as one that failed."),
    text: text("The return value as JSON, or the reason of a failure."),
    takeNext: flag("Whether to take another job in its place."),
  },
  eachKey: "proof",
  whenFull: true,
});

export interface Completion {
  id: string;
  token: string;
  /** Whether it stays visible in the queue page, among the newest. */
  keep: boolean;
  returnValueJson: string;
  /** Why it failed, where it did; it stays visible then. */
  failedReason?: string | undefined;
  /**
   * The key that what it led to is in, without which it is given back instead; for a chunk's job a hash by chunk
   * number. None where there is nothing to look for.
   */
  proof?: string | null | undefined;
  /** Whether to take another job in its place, under the same token. */
  takeNext: boolean;
}

/** Ends jobs of one queue; for each, in order: a BullMQ error code below 0, 0, or the next job. */
export async function completeJobs(
  redis: RedisClient,
  queue: string,
  completions: readonly Completion[],
  lockMs: number,
): Promise<(number | TakenRaw)[]> {
  const wait = `${queue}${bullKeys.wait}`;
  const answers = await script.run(redis, {
    keys: { wait },
    // The wait list stands for a proof that need not be looked for.
    eachKey: completions.map(({ proof }) => proof ?? wait),
    fields: { queue, nowMs: Date.now(), lockMs, keptJobs },
    each: completions.map(({ failedReason, id, keep, returnValueJson, takeNext, token }) => ({
      id,
      token,
      outcome: failedReason !== undefined ? 2 : keep ? 1 : 0,
      text: failedReason ?? returnValueJson,
      takeNext,
    })),
  });
  return answers as (number | TakenRaw)[];
}
