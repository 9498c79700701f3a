import type { StoredResult } from "@millrace/shared/predictions/prediction.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { failureGroups, failuresAfter } from "@millrace/shared/scripts/predictions/failures.js";
import { finishPredictions } from "@millrace/shared/scripts/predictions/finish.js";
import {
  type FailureRetry,
  type RetrySettings,
  retryFailures,
} from "@millrace/shared/scripts/predictions/retry-failures.js";
import { acceptPredictions } from "@millrace/shared/scripts/queue/accept.js";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from "vitest";
import { acceptanceOf } from "../support/acceptance.js";
import { contents } from "../support/queue-contents.js";
import { newPrefix } from "../support/run/prefix.js";

/** Limits that let `jobs` jobs wait. */
const limitsOf = (jobs: number) => ({ jobs, rows: 1e9, bytes: 1e9, ownerPart: 1, followers: 1000 });

describe("retrying failures in one step", () => {
  let redis: RedisClient;
  let prefix: string;
  const keys = () => modelKeys(prefix, "echo");
  const failures = () => keys().failures("alice", "timeout");
  const counter = () => keys().redriven("redrive");

  beforeAll(() => {
    redis = openRedis(parseRedisUrl(inject("redisUrl")), "patient", "test");
  });
  afterAll(() => redis.disconnect());
  beforeEach(() => {
    prefix = newPrefix();
  });
  afterEach(async () => {
    const left = await redis.keys(`${prefix}*`);
    if (left.length > 0) await redis.unlink(...left);
  });

  const acceptance = (id = newId(keys().tag)) => acceptanceOf(id);
  const retryOf = (failed: string): FailureRetry => ({ failed, acceptance: acceptance() });
  const retry = async (failed: readonly string[], overrides: Partial<RetrySettings> = {}): Promise<string[]> => {
    const once = { counter: counter(), keptSeconds: 60 };
    const settings = { nowMs: Date.now(), limits: limitsOf(100), resultTtlMs: 60_000, failures: failures(), once };
    const outcomes = await retryFailures(redis, keys(), failed.map(retryOf), { ...settings, ...overrides });
    return outcomes.map(({ kind }) => kind);
  };
  const addFailures = async (count: number): Promise<string[]> => {
    const ids = Array.from({ length: count }, () => newId(keys().tag)).sort();
    for (const id of ids) await redis.zadd(failures(), Date.now(), id);
    return ids;
  };
  const waiting = () => redis.llen(`${keys().queue}wait`);

  /** Ends predictions as failed, like the worker that holds their locks. */
  const end = async (ids: readonly string[], ttlSeconds: number) => {
    const result: StoredResult = { owner: "alice", status: "failed", json: '{"output":null}', input: "AA==" };
    for (const id of ids) await redis.set(`${keys().queue}${id}:lock`, "lock");
    return finishPredictions(
      redis,
      keys(),
      ids.map((id) => ({
        id,
        by: { token: "lock" },
        result,
        dedup: null,
        cache: null,
        started: true,
        failure: "timeout",
      })),
      {
        resultTtlSeconds: ttlSeconds,
        channelPrefix: prefix,
        cancelChannel: prefix,
        onStored: () => undefined,
        nowMs: Date.now(),
      },
    );
  };

  test("accepts a failure once, and reports a repeated or unknown one as taken", async () => {
    const ids = await addFailures(3);
    expect(await retry([...ids.slice(0, 2), "never"])).toEqual(["queued", "queued", "taken"]);
    expect(await retry(ids)).toEqual(["taken", "taken", "queued"]);
    expect(await retry(ids)).toEqual(["taken", "taken", "taken"]);
    expect([await waiting(), await redis.get(counter()), await redis.exists(failures())]).toEqual([3, "3", 0]);
  });

  test("accepts each failure once in concurrent calls", async () => {
    const ids = await addFailures(50);
    const outcomes = await Promise.all(Array.from({ length: 8 }, () => retry(ids)));
    for (const i of ids.keys()) expect(outcomes.filter((kinds) => kinds[i] === "queued")).toHaveLength(1);
    expect([await waiting(), await redis.get(counter())]).toEqual([50, "50"]);
  });

  test("leaves a failure in place if the queue is full", async () => {
    const ids = await addFailures(5);
    expect(await retry(ids, { limits: limitsOf(3) })).toEqual(["queued", "queued", "queued", "full", "full"]);
    expect(await redis.zrange(failures(), "0", "-1")).toEqual(ids.slice(3));
    expect(await redis.get(counter())).toBe("3");
  });

  test("leaves a failure in place if its large input has expired", async () => {
    const [failed = ""] = await addFailures(1);
    const retries = [{ failed, acceptance: { ...acceptance(), pieces: 2 } }];
    const settings = { nowMs: Date.now(), limits: limitsOf(100), resultTtlMs: 60_000, failures: failures() };
    expect(await retryFailures(redis, keys(), retries, settings)).toEqual([{ kind: "gone" }]);
    expect(await redis.zcard(failures())).toBe(1);
  });

  test("accepts a retry by hand whether or not it is still a failure", async () => {
    const [id = ""] = await addFailures(1);
    const byHand = { failures: failures(), limits: limitsOf(100), resultTtlMs: 60_000, nowMs: Date.now() };
    for (let i = 0; i < 2; i++) {
      expect(await retryFailures(redis, keys(), [retryOf(id)], byHand)).toMatchObject([{ kind: "queued" }]);
    }
    expect(await redis.exists(failures(), counter())).toBe(0);
  });

  test("leaves the queue in the same state as accepting alone", async () => {
    const ids = await addFailures(3);
    const settings = { nowMs: Date.now(), limits: limitsOf(100), resultTtlMs: 60_000 };
    const retries = ids.map(retryOf);
    await retryFailures(redis, keys(), retries, { ...settings, failures: failures() });
    const ours = await contents(redis, keys().base);
    await redis.unlink(...(await redis.keys(`${prefix}*`)));
    const acceptances = retries.map(({ acceptance: one }) => one);
    await acceptPredictions(redis, keys(), acceptances, settings);
    expect(ours).toEqual(await contents(redis, keys().base));
  });

  test("finds a failed prediction until its result expires; each new failure removes expired ones", async () => {
    const old = Array.from({ length: 100 }, (_, i) => newId(keys().tag) + i);
    for (const id of old) await redis.zadd(failures(), Date.now() - 61_000, id);
    const since = () => Date.now() - 60_000;
    expect(await failureGroups(redis, keys(), "alice", ["timeout"], since())).toEqual([]);
    const ids = [newId(keys().tag), newId(keys().tag)];
    expect(await end(ids, 60)).toEqual(["written", "written"]);
    // Writing the same ends again changes nothing.
    expect(await end(ids, 60)).toEqual(["final", "final"]);
    expect(await redis.zcard(failures())).toBe(2);
    const [group] = await failureGroups(redis, keys(), "alice", ["poisoned", "timeout"], since());
    expect(group).toMatchObject({ code: "timeout", count: 2 });
    expect(group?.ids.sort()).toEqual(ids.sort());
    expect(await redis.ttl(failures())).toBeGreaterThan(50);
    expect(await failureGroups(redis, keys(), "bob", ["timeout"], since())).toEqual([]);
  });

  test("pages through all failures, also those of the same millisecond", async () => {
    const wanted: string[] = [];
    for (let i = 0; i < 40; i++) {
      const id = `${String(i).padStart(3, "0")}`;
      wanted.push(id);
      await redis.zadd(failures(), 1000 + Math.floor(i / 15), id);
    }
    const found: string[] = [];
    for (let after = { failedAt: 1000, id: "" }; ; ) {
      const page = await failuresAfter(redis, failures(), after, 1002, 4);
      const last = page.at(-1);
      if (last === undefined) break;
      found.push(...page.map(({ id }) => id));
      // Failures taken by others in between do not shift the page.
      await redis.zrem(failures(), page[0]?.id as string);
      after = last;
    }
    expect(found).toEqual(wanted);
  });
});
