import type { StoredResult } from "@millrace/shared/predictions/prediction.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { watchPrediction } from "@millrace/shared/scripts/followers/watch.js";
import { type LookedUp, type LookUpDependencies, lookUpPrediction, modelOfId } from "./look-up-prediction.js";
import type { Notices, Waiter } from "./notices.js";

/** Something that ends: a prediction, a batch, a redrive. */
export interface Ending<T> {
  id: string;
  keys: Pick<ModelKeys, "interest" | "starts">;
  /** The key that is there as soon as it has ended, where one is. */
  resultKey?: string;
  /** As it stands now. */
  read(): Promise<T>;
  isFinal(now: T): boolean;
  /** When it ends by the clock, in ms since the epoch. */
  expiresAt?(now: T): number | null;
  /** As a notice tells it that carries the result; where missing, it is read. */
  told?(result: StoredResult): T;
}

/**
 * Waits for the end, for `waitMs` at the most or until `gone` says that nobody listens any more, and resolves to what
 * there is then. A `waiter` that listens already is used and closed; else one is opened where there is something to
 * wait for.
 */
export async function awaitEnd<T>(
  { notices, redis }: { redis: RedisClient; notices: Notices },
  ending: Ending<T>,
  waitMs: number,
  gone: AbortSignal,
  waiter: Waiter | null = null,
): Promise<T> {
  const { id, isFinal, keys, read, resultKey } = ending;
  let latest: T | null = null;
  let listening = waiter;
  try {
    if (listening === null) {
      latest = await read();
      if (isFinal(latest) || waitMs === 0) return latest;
      listening = notices.wait(id, waitMs, ending.expiresAt?.(latest) ?? null);
    }
    listening.closeWhen(gone);
    if (waiter === null) {
      const result = resultKey === undefined ? {} : { result: resultKey };
      await watchPrediction(redis, keys, id, notices.apiId, { start: false, ...result });
      // It may have ended before the note was there, and no notice would tell.
      latest = await read();
      if (isFinal(latest)) {
        // The step that ended it took the notes away; one that came after it would stay for a day.
        if (resultKey === undefined) redis.unlink(keys.interest(id)).catch(() => undefined);
        return latest;
      }
    }
    for (;;) {
      const news = await listening.next();
      if (news === null) return gone.aborted && latest !== null ? latest : await read();
      if (news !== "look" && ending.told !== undefined) return ending.told(news);
      latest = await read();
      if (isFinal(latest)) return latest;
    }
  } finally {
    listening?.close();
  }
}

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
