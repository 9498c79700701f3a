import { jobOutcomes, keptJobs } from "../../predictions/job.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import { defineScript } from "../lua/define-script.js";
import { answers, flag, number, text } from "../lua/fields.js";
import type { TakenRaw } from "./take-jobs.js";

/**
 * Ends jobs for BullMQ and takes as many next ones, all in one step. It changes the queue as BullMQ 6.7 does job by
 * job, except for the event stream, which has no reader. Ten or a hundred jobs end together here, because they ran
 * together. `test/queue/complete.test.ts` compares the queue with one worked off by BullMQ.
 *
 * A job is removed only if its proof exists: after a failover, a new master may have the job's lock but not its result.
 * In that case the job returns to the queue.
 *
 * The answer for each job is one of `bullmqErrors` if the job is not ours (lock missing or another's, or not active),
 * else 0 or `{job, id, 0, time of the next delayed job}`.
 */
const script = defineScript({
  name: "millraceComplete",
  file: "queue/complete",
  keys: { wait: text("The queue's wait list.") },
  fields: {
    queue: text("Prefix of the queue's keys."),
    nowMs: number("Time of the end."),
    lockMs: number("Duration of the locks of taken jobs."),
    keptJobs: number("Number of jobs that stay visible, of each state."),
  },
  each: {
    id: text("The job's id."),
    token: text("Its lock token."),
    outcome: text("One of `jobOutcomes`."),
    text: text("The return value as JSON, or the reason of a failure."),
    takeNext: flag("Whether to take another job in its place."),
  },
  eachKey: "proof",
  answer: answers<(number | TakenRaw)[]>("For each job a code of BullMQ below 0, 0, or the next job."),
  whenFull: true,
});

export interface Completion {
  id: string;
  token: string;
  /** Whether it stays visible in the queue page, among the newest. */
  keep: boolean;
  returnValueJson: string;
  /** Reason of a failure, which then stays visible; undefined without one. */
  failedReason?: string | undefined;
  /**
   * The key whose existence proves that the job's outcome is stored; without it the job returns to the queue. For a
   * chunk's job, a hash by chunk number. None: no proof is needed.
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
  { lockMs, nowMs }: { lockMs: number; nowMs: number },
): Promise<(number | TakenRaw)[]> {
  const wait = `${queue}${bullKeys.wait}`;
  return script.run(redis, {
    keys: { wait },
    // The wait list's key stands for a proof that is not needed.
    eachKey: completions.map(({ proof }) => proof ?? wait),
    fields: { queue, nowMs, lockMs, keptJobs },
    each: completions.map(({ failedReason, id, keep, returnValueJson, takeNext, token }) => ({
      id,
      token,
      outcome: failedReason !== undefined ? jobOutcomes.failed : keep ? jobOutcomes.completed : jobOutcomes.removed,
      text: failedReason ?? returnValueJson,
      takeNext,
    })),
  });
}
