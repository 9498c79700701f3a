import type { ConfirmedWrite } from "@millrace/shared/redis/confirm-writes.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { type Acceptance, type AcceptSettings, acceptPredictions } from "@millrace/shared/scripts/queue/accept.js";
import type { AcceptOutcome } from "@millrace/shared/scripts/queue/accept-outcome.js";
import { joinCalls } from "@millrace/shared/service/join-turn.js";

const largestStep = 64;
const largestStepBytes = 1_000_000;

export type Accept = (keys: ModelKeys, acceptance: Acceptance) => Promise<AcceptOutcome>;

/**
 * Accepts predictions; those of one model that come in the same turn of the event loop go to Redis as one step, which
 * saves it more than half of the work when many callers come at once.
 */
export function acceptTogether(confirmed: ConfirmedWrite, settings: AcceptSettings): Accept {
  const accept = joinCalls<{ keys: ModelKeys; acceptance: Acceptance }, AcceptOutcome>(
    ([first, ...others]) => {
      const acceptances = [first, ...others].map(({ acceptance }) => acceptance);
      // No later than any of them was submitted, or one could expire before its time.
      const nowMs = Math.min(Date.now(), ...acceptances.map(({ submittedMs = Infinity }) => submittedMs));
      return confirmed(first.keys, (redis) =>
        acceptPredictions(redis, first.keys, acceptances, { nowMs, ...settings }),
      );
    },
    {
      keyOf: ({ keys }) => keys.base,
      maxCalls: largestStep,
      maxBytes: largestStepBytes,
      bytesOf: ({ acceptance }) => acceptance.dataJson.length,
    },
  );
  return (keys, acceptance) => accept({ keys, acceptance });
}
