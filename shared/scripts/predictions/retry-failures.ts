import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, flag, number, text, unnamed } from "../lua/fields.js";
import {
  type Acceptance,
  type AcceptSettings,
  acceptEach,
  acceptEachOf,
  acceptFields,
  acceptFieldsOf,
} from "../queue/accept.js";
import { type AcceptAnswer, type AcceptOutcome, acceptOutcome } from "../queue/accept-outcome.js";

/**
 * Accepts predictions in place of failed ones, and removes those from the failures in the same step. `accept-all.lua`
 * serves both this and submissions, so all rules of a submission apply here.
 */
const script = defineScript({
  name: "millraceRetryFailures",
  file: "predictions/retry-failures",
  keys: {
    failures: text("The failures of one owner and code."),
    counter: text("Count of the accepted ones."),
    wait: unnamed(text("The model's wait list; it sets the hash slot.")),
  },
  fields: {
    once: flag("Whether to accept only predictions that are still failures."),
    counterSeconds: number("Time to keep the counter; 0 for none."),
    ...acceptFields,
  },
  each: { failed: text("The prediction that failed."), ...acceptEach },
  answer: answers<(["taken"] | AcceptAnswer)[]>("The outcome of each, in order."),
});

/** A failed prediction, and the new one in its place. */
export interface FailureRetry {
  failed: string;
  acceptance: Acceptance;
}

/** As for any submission, or `taken`: it is no longer a failure, because it was retried or its result time is over. */
export type RetryOutcome = AcceptOutcome | { kind: "taken" };

export interface RetrySettings extends AcceptSettings {
  nowMs: number;
  /** The set of the failed ones: `keys.failures` of their owner and code. */
  failures: string;
  /**
   * The counter of the accepted ones and its lifetime; with it, only predictions that are still failures are accepted.
   */
  once?: { counter: string; keptSeconds: number };
}

/** Accepts predictions of one model, owner and code anew; outcomes in the order given. */
export async function retryFailures(
  redis: RedisClient,
  keys: ModelKeys,
  retries: readonly FailureRetry[],
  { failures, once, ...settings }: RetrySettings,
): Promise<RetryOutcome[]> {
  const outcomes = await script.run(redis, {
    keys: { failures, counter: once?.counter ?? failures, wait: `${keys.queue}${bullKeys.wait}` },
    fields: {
      once: once !== undefined,
      counterSeconds: once?.keptSeconds ?? 0,
      ...acceptFieldsOf(keys, settings),
    },
    each: retries.map(({ acceptance, failed }) => ({ failed, ...acceptEachOf(keys, acceptance, settings) })),
  });
  return outcomes.map((answer) => (answer[0] === "taken" ? { kind: "taken" } : acceptOutcome(answer)));
}
