import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import type { FailureCode } from "../../service/failure-codes.js";

/**
 * Failures of one model and code: failed predictions that were not retried. The rules:
 * - The step that makes a prediction fail adds it to the sorted set of its owner and code, scored by the time of
 *   failure (ms).
 * - The step that accepts it anew removes it, so that concurrent redrives accept it only once.
 * - An entry is void once the result time is over. Readers skip older entries, and each addition removes up to 64 of
 *   them, so the set never outgrows the readable failures.
 */
export interface FailureGroup {
  code: FailureCode;
  count: number;
  /** Times of the first and the last failure, in ms since the epoch. */
  firstAt: number;
  lastAt: number;
  /** The newest failures, newest first. */
  ids: string[];
}

const exampleCount = 5;

/** An owner's failures of one model since a time (ms), by code; the cost hardly depends on their number. */
export async function failureGroups(
  redis: RedisClient,
  keys: ModelKeys,
  owner: string,
  codes: readonly FailureCode[],
  sinceMs: number,
): Promise<FailureGroup[]> {
  const pipeline = redis.pipeline();
  for (const code of codes) {
    const failures = keys.failures(owner, code);
    pipeline.zcount(failures, `(${sinceMs}`, "+inf");
    pipeline.zrangebyscore(failures, `(${sinceMs}`, "+inf", "WITHSCORES", "LIMIT", 0, 1);
    pipeline.zrevrangebyscore(failures, "+inf", `(${sinceMs}`, "WITHSCORES", "LIMIT", 0, exampleCount);
  }
  const answers = ((await pipeline.exec()) ?? []).map(([fault, value]) => {
    if (fault !== null) throw fault;
    return value;
  });
  return codes.flatMap((code, i) => {
    const [count, first, last] = answers.slice(3 * i, 3 * i + 3) as [number, string[], string[]];
    if (first.length === 0 || last.length === 0) return [];
    const ids = last.filter((_, k) => k % 2 === 0);
    return [{ code, count: Math.max(count, ids.length), firstAt: Number(first[1]), lastAt: Number(last[1]), ids }];
  });
}

/** Counts an owner's failures of one model and code between two times (ms), both included. */
export const countFailures = (
  redis: RedisClient,
  keys: ModelKeys,
  owner: string,
  code: FailureCode,
  { from, to }: { from: number; to: number },
): Promise<number> => redis.zcount(keys.failures(owner, code), from, to);

export interface Failure {
  id: string;
  failedAt: number;
}

/**
 * Up to `count` failures until `to` (ms, included), oldest first and then by id, that come after the failure `after`.
 */
export async function failuresAfter(
  redis: RedisClient,
  failures: string,
  after: Failure,
  to: number,
  count: number,
): Promise<Failure[]> {
  const found: Failure[] = [];
  // Failures of one run share a millisecond; those up to `after` itself are skipped.
  for (let offset = 0; found.length < count; offset += count) {
    const page = await redis.zrangebyscore(failures, after.failedAt, to, "WITHSCORES", "LIMIT", offset, count);
    for (let i = 0; i < page.length; i += 2) {
      const failure = { id: page[i] as string, failedAt: Number(page[i + 1]) };
      if (failure.failedAt > after.failedAt || failure.id > after.id) found.push(failure);
    }
    if (page.length < 2 * count) break;
  }
  return found.slice(0, count);
}
