import { awaitEnd } from "./await-end.js";
import { type LookedUp, type LookUpDependencies, lookUpPrediction, modelOfId } from "./look-up-prediction.js";
import type { Waiter } from "./notices.js";

/**
 * A prediction of the owner's as soon as it is final, else as it stands after `waitMs`, or when `gone` says that nobody
 * listens any more. `waiter`: one that has listened since before the prediction was accepted.
 */
export async function awaitPrediction(
  deps: LookUpDependencies,
  owner: string,
  id: string,
  waitMs: number,
  gone: AbortSignal,
  waiter: Waiter | null = null,
): Promise<LookedUp> {
  const { keys } = await modelOfId(deps, id);
  const ending = {
    id,
    keys,
    resultKey: keys.result(id),
    read: () => lookUpPrediction(deps, owner, id),
    isFinal: ({ final }: LookedUp) => final,
    expiresAt: ({ expiresAt }: LookedUp) => expiresAt ?? null,
    told: (result: NonNullable<LookedUp["result"]>): LookedUp => ({ json: result.json, final: true, result }),
  };
  return awaitEnd(deps, ending, waitMs, gone, waiter);
}
