import { type Retryable, retryableOf } from "@millrace/shared/predictions/retryable.js";
import type { ConfirmedWrite } from "@millrace/shared/redis/confirm-writes.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { retryFailures } from "@millrace/shared/scripts/predictions/retry-failures.js";
import type { Accept, AcceptSettings } from "@millrace/shared/scripts/queue/accept.js";
import type { AcceptOutcome } from "@millrace/shared/scripts/queue/accept-outcome.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { FailureCode } from "@millrace/shared/service/failure-codes.js";
import type { KnownModel } from "../models/model-directory.js";
import { type LookUpDependencies, lookUpPrediction, readOwned } from "./look-up-prediction.js";

export interface RetryDependencies {
  confirmed: ConfirmedWrite;
  acceptSettings: AcceptSettings;
  clock: Clock;
}

/** Accepts a retry of one failed prediction, which is no failure to be redriven any more from the same step on. */
export function acceptRetry(
  { acceptSettings, clock, confirmed }: RetryDependencies,
  failed: string,
  failure: FailureCode,
): Accept {
  return async (keys, acceptance) => {
    const failures = keys.failures(acceptance.owner, failure);
    const settings = { ...acceptSettings, failures };
    const [outcome] = await confirmed(keys, (redis) =>
      retryFailures(redis, keys, [{ failed, acceptance }], { ...settings, nowMs: clock.now() }),
    );
    // A retry by id is accepted, however often the prediction was tried again.
    return outcome as AcceptOutcome;
  };
}

/** A failed, canceled or expired prediction of the owner's. Throws `state_conflict` for any other. */
export async function readRetryable(
  deps: LookUpDependencies,
  owner: string,
  id: string,
): Promise<{ model: KnownModel; retryable: Retryable }> {
  await lookUpPrediction(deps, owner, id);
  const { model, read } = await readOwned(deps, owner, id);
  if (!("final" in read)) throw new ServiceError("state_conflict", "The prediction is not final yet.");
  const retryable = retryableOf(read.final);
  if (retryable === null)
    throw new ServiceError("state_conflict", `The prediction has ${read.final.status}, so it cannot be retried.`);
  return { model, retryable };
}
