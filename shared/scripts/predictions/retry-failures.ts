import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { flag, number, text, unnamed } from "../lua/fields.js";
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
 * Accepts predictions in place of failed ones, and takes those off the failures in the same step: `accept-all.lua` does
 * both this and submissions, so all that holds for a submission holds for these.
 */
const script = defineScript({
  name: "millraceRetryFailures",
  file: "predictions/retry-failures",
  keys: {
    failures: text("The failures of one owner and code."),
    counter: text("Count of the accepted ones."),
    wait: unnamed(text("The model's wait list, which tells the slot.")),
  },
  fields: {
    once: flag("Whether only those are accepted that are still among the failures."),
    counterSeconds: number("Time to keep the counter; 0 for none."),
    ...acceptFields,
  },
  each: { failed: text("The prediction that failed."), ...acceptEach },
});

/** A failed prediction, and the new one that is to take its place. */
export interface FailureRetry {
  failed: string;
  acceptance: Acceptance;
}

/**
 * As for any submission, or `taken`: it is no failure any more, because it was tried again or its result time is over.
 */
export type RetryOutcome = AcceptOutcome | { kind: "taken" };

export interface RetrySettings extends AcceptSettings {
  nowMs: number;
  /** Where the failed ones are noted: `keys.failures` of their owner and code. */
  failures: string;
  /** What counts those that were accepted, and how long it is kept; then only what is a failure still is accepted. */
  once?: { counter: string; keptSeconds: number };
}

/** Accepts predictions of one model, owner and code anew; outcomes in the order given. */
export async function retryFailures(
  redis: RedisClient,
  keys: ModelKeys,
  retries: readonly FailureRetry[],
  { failures, once, ...settings }: RetrySettings,
): Promise<RetryOutcome[]> {
  const answers = await script.run(redis, {
    keys: { failures, counter: once?.counter ?? failures, wait: `${keys.queue}${bullKeys.wait}` },
    fields: {
      once: once !== undefined,
      counterSeconds: once?.keptSeconds ?? 0,
      ...acceptFieldsOf(keys, settings),
    },
    each: retries.map(({ acceptance, failed }) => ({ failed, ...acceptEachOf(keys, acceptance, settings) })),
  });
  return (answers as (["taken"] | AcceptAnswer)[]).map((answer) =>
    answer[0] === "taken" ? { kind: "taken" } : acceptOutcome(answer),
  );
}
