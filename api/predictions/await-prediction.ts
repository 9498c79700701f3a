import { watchPrediction } from "@millrace/shared/scripts/predictions/watch.js";
import { type LookedUp, type LookUpDependencies, lookUpPrediction, modelOfId } from "./look-up-prediction.js";
import type { Waiter } from "./notices.js";

/**
 * A prediction of the owner's as soon as it is final, else as it stands after `waitMs`, or when `gone` says that nobody
 * listens any more.
 */
export async function awaitPrediction(
  deps: LookUpDependencies,
  owner: string,
  id: string,
  waitMs: number,
  gone: AbortSignal,
): Promise<LookedUp> {
  const first = await lookUpPrediction(deps, owner, id);
  if (first.final || waitMs === 0) return first;
  const { keys } = await modelOfId(deps, id);
  const waiter = deps.notices.wait(id, waitMs, first.expiresAt ?? null);
  const stop = () => waiter.close();
  gone.addEventListener("abort", stop);
  try {
    await watchPrediction(deps.redis, keys, id, deps.notices.apiId, { start: false, result: keys.result(id) });
    // It may have ended before the note was there, and nobody would tell.
    const second = await lookUpPrediction(deps, owner, id);
    if (second.final) return second;
    return (
      (await awaitNotice(deps, owner, id, waiter, gone)) ?? (gone.aborted ? second : lookUpPrediction(deps, owner, id))
    );
  } finally {
    gone.removeEventListener("abort", stop);
    waiter.close();
  }
}

/** Waits on a waiter that listens already; null when the time is over or nobody listens. Closes it. */
export async function awaitNotice(
  deps: LookUpDependencies,
  owner: string,
  id: string,
  waiter: Waiter,
  gone: AbortSignal,
): Promise<LookedUp | null> {
  const stop = () => waiter.close();
  if (gone.aborted) stop();
  gone.addEventListener("abort", stop);
  try {
    for (;;) {
      const news = await waiter.next();
      if (news === null) return null;
      if (news !== "look") return { json: news.json, final: true, result: news };
      const latest = await lookUpPrediction(deps, owner, id);
      if (latest.final) return latest;
    }
  } finally {
    gone.removeEventListener("abort", stop);
    waiter.close();
  }
}
