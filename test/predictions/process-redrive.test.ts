import { encodeResult, predictionJson } from "@millrace/shared/predictions/prediction.js";
import type { RedrivePlan } from "@millrace/shared/predictions/redrive.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { type ModelKeys, modelKeys, redriveKeys } from "@millrace/shared/redis/keys.js";
import { memoryOf } from "@millrace/shared/redis/redis-info.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { takeTokens } from "@millrace/shared/scripts/access/token-bucket.js";
import { tellBreaker } from "@millrace/shared/scripts/models/tell-breaker.js";
import { countRedriven, endRedrive, makeRedrive, readRedrive } from "@millrace/shared/scripts/predictions/redrives.js";
import { openLog } from "@millrace/shared/service/log.js";
import { paceOf, processRedrive } from "@millrace/workers/jobs/process-redrive.js";
import { createWorkerMetrics } from "@millrace/workers/monitoring/metrics.js";
import { DelayedError } from "bullmq";
import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from "vitest";
import { machineClock } from "../support/redis/machine-clock.js";
import { newPrefix } from "../support/run/prefix.js";

const log = openLog("test", "error");

/** Limits that let `jobs` jobs wait. */
const limitsOf = (jobs: number) => ({ jobs, rows: 1e9, bytes: 1e9, ownerPart: 1, followers: 1000 });

describe("a slice of a redrive", () => {
  let redis: RedisClient;
  let prefix: string;
  const keys = (model = "echo") => modelKeys(prefix, model);
  const redriveHome = () => redriveKeys(prefix);

  beforeAll(() => {
    redis = openRedis(parseRedisUrl(inject("redisUrl")), "patient", "test");
  });
  afterAll(() => redis.disconnect());
  beforeEach(async () => {
    prefix = newPrefix();
    for (const model of ["echo", "other"]) await redis.hset(keys(model).versions, "1", "{}");
  });
  afterEach(async () => {
    const left = await redis.keys(`${prefix}*`);
    if (left.length > 0) await redis.unlink(...left);
  });

  /** Writes the keys of a failed prediction; version null: its result has expired. */
  const fail = async (of: ModelKeys, version: string | null, owner = "alice"): Promise<string> => {
    const id = newId(of.tag);
    await redis.zadd(of.failures("alice", "timeout"), Date.now(), id);
    if (version === null) return id;
    const json = predictionJson({
      ...{ id, model: "echo", version, status: "failed", outputJson: null, error: { code: "timeout", detail: "late" } },
      ...{ createdAt: 1, startedAt: 1, finishedAt: 2, attempts: 1, cached: false, deduplicated: false },
      ...{ metadata: `{"is":"${id}"}`, retryOf: undefined, queuePosition: null, modelDigest: "", timings: null },
    });
    await redis.set(of.result(id), encodeResult({ owner, status: "failed", json, input: "AA==" }));
    return id;
  };
  /** Locks the redrive's job with the token `mine`; resolves to its processor. */
  const holdJob = async (id: string) => {
    await redis.set(`${redriveHome().queue}${id}:lock`, "mine");
    return processRedrive({ redis, keyPrefix: prefix, metrics: createWorkerMetrics(), clock: machineClock, log });
  };
  /** Runs one slice, after which the redrive waits. */
  const runSlice = async (id: string): Promise<void> => {
    const process = await holdJob(id);
    await expect(process({ id, moveToDelayed: async () => undefined }, "mine")).rejects.toThrow(DelayedError);
  };
  const make = async (overrides: Partial<RedrivePlan> = {}): Promise<string> => {
    const id = newId(redriveHome().tag);
    const plan: RedrivePlan = {
      v: 1,
      filter: { model: null, code: null, failed_after: null, failed_before: null },
      from: 0,
      to: Date.now(),
      lots: ["echo", "other"].map((model) => ({ model, code: "timeout" })),
      total: 0,
      rate: 1000,
      accept: { limits: limitsOf(100), weight: 1, memoryPart: 1, rows: null, resultTtlMs: 60_000 },
      requestId: "request",
      ...overrides,
    };
    const made = await makeRedrive(redis, redriveHome(), { id, owner: "alice", plan, createdAt: Date.now() }, 10);
    expect(made).toEqual({ kind: "made", id });
    return id;
  };
  /** Runs slices under that lock token until the redrive has ended; resolves to the last slice's outcome. */
  const run = async (id: string, token = "mine"): Promise<string> => {
    const process = await holdJob(id);
    for (;;) {
      const delayed: number[] = [];
      const job = { id, moveToDelayed: async (at: number) => delayed.push(at) };
      const end = await process(job, token).catch((fault: Error) => fault.name);
      if (end !== "DelayedError") return end;
      expect(delayed).toHaveLength(1);
      // Moves the pace into the past, as if the delay were over.
      await redis.hset(redriveHome().redrive(id), "paced", Date.now() - 1000);
    }
  };
  const jobs = async (model?: string) => {
    const { queue } = keys(model);
    const ids = await redis.lrange(`${queue}wait`, 0, -1);
    return Promise.all(ids.map(async (id) => JSON.parse((await redis.hget(`${queue}${id}`, "data")) as string)));
  };
  const state = async (id: string) => {
    const redrive = await readRedrive(redis, redriveHome(), id);
    if (redrive === null) throw new Error(`redrive ${id} has expired`);
    return { ...redrive, redriven: await countRedriven(redis, prefix, redrive) };
  };

  test("accepts the failures of every model again, with input, version, metadata and request id", async () => {
    const one = await fail(keys(), "1");
    const other = await fail(keys("other"), "1");
    const id = await make();
    expect(await run(id)).toBe("succeeded");
    const wanted = (of: string) => ({
      v: 1,
      o: "alice",
      ver: "1",
      m: { is: of },
      r: "request",
      ro: of,
      x: "AA==",
      q: 1,
    });
    expect([await jobs(), await jobs("other")]).toEqual([[wanted(one)], [wanted(other)]]);
    expect(await state(id)).toMatchObject({ end: "succeeded", redriven: 2, skipped: 0 });
  });

  test("takes its rows from what its key may have in a minute, and waits for more", async () => {
    for (let i = 0; i < 5; i++) await fail(keys(), "1");
    const rows = { key: `${prefix}:limit:rows:key`, limit: 3 };
    // Of the three of a minute, a request of the same key has taken one.
    expect(await takeTokens(redis, { ...rows, cost: 1 })).toBe(true);
    const id = await make({ accept: { limits: limitsOf(100), weight: 1, memoryPart: 1, rows, resultTtlMs: 60_000 } });
    await redis.hset(redriveHome().redrive(id), "paced", Date.now() - 1000);
    await runSlice(id);
    expect(await state(id)).toMatchObject({ end: null, redriven: 2, skipped: 0 });
    expect(await takeTokens(redis, { ...rows, cost: 1 })).toBe(false);
    await redis.del(rows.key);
    expect(await run(id)).toBe("succeeded");
    expect(await state(id)).toMatchObject({ redriven: 5, skipped: 0 });
  });

  test("waits while Redis has used the part of its memory for new work", async () => {
    await fail(keys(), "1");
    const accept = { limits: limitsOf(100), weight: 1, rows: null, resultTtlMs: 60_000 };
    const { max, used } = await memoryOf(redis as Redis);
    await (redis as Redis).config("SET", "maxmemory", 1000 * used);
    try {
      const id = await make({ accept: { ...accept, memoryPart: 1e-6 } });
      await runSlice(id);
      expect(await state(id)).toMatchObject({ end: null, redriven: 0, skipped: 0 });
      await redis.hset(redriveHome().redrive(id), "paced", Date.now() - 1000);
    } finally {
      await (redis as Redis).config("SET", "maxmemory", max);
    }
  });

  test("skips and counts failures without a result, without a version or of another owner", async () => {
    const left = [await fail(keys(), null), await fail(keys(), "2"), await fail(keys(), "1", "bob")];
    const good = await fail(keys(), "1");
    const id = await make();
    expect(await run(id)).toBe("succeeded");
    expect((await jobs()).map(({ ro }) => ro)).toEqual([good]);
    expect(await state(id)).toMatchObject({ end: "succeeded", redriven: 1, skipped: 3 });
    expect((await redis.zrange(keys().failures("alice", "timeout"), "0", "-1")).sort()).toEqual(left.sort());
  });

  test("that was lost before it noted its progress is repeated without accepting anything twice", async () => {
    for (let i = 0; i < 150; i++) await fail(keys(), i % 10 === 0 ? "2" : "1");
    const id = await make({
      accept: { limits: limitsOf(1000), weight: 1, memoryPart: 1, rows: null, resultTtlMs: 60_000 },
    });
    // This slice accepts what its rate allows, but cannot note it, because another token holds the job's lock.
    await redis.hset(redriveHome().redrive(id), "paced", Date.now() - 30);
    expect(await run(id, "another's")).toBe("ended");
    expect((await state(id)).redriven).toBeGreaterThan(0);
    expect(await state(id)).toMatchObject({ place: null, skipped: 0, end: null });
    expect(await run(id)).toBe("succeeded");
    const accepted = (await jobs()).map(({ ro }) => ro);
    expect([accepted.length, new Set(accepted).size]).toEqual([135, 135]);
    expect(await state(id)).toMatchObject({ redriven: 135, skipped: 15 });
  });

  test("waits while a version's breaker is open, and continues when it closes", async () => {
    await fail(keys(), "1");
    const id = await make();
    const breaker = { worker: "w", version: "1" };
    const open = { ...breaker, state: "open", refuses: true, retryAt: Date.now() + 60_000 } as const;
    await tellBreaker(redis, keys(), breaker, open, Date.now());
    await runSlice(id);
    expect(await state(id)).toMatchObject({ end: null, redriven: 0, skipped: 0 });
    await tellBreaker(redis, keys(), breaker, null, Date.now());
    expect(await run(id)).toBe("succeeded");
    expect(await state(id)).toMatchObject({ redriven: 1, skipped: 0 });
  });

  test("does nothing if the redrive has ended", async () => {
    await fail(keys(), "1");
    const id = await make();
    const redrive = await readRedrive(redis, redriveHome(), id);
    if (redrive === null) throw new Error(`redrive ${id} has expired`);
    expect(await endRedrive(redis, redriveHome(), prefix, redrive, "canceled", Date.now())).toBe(true);
    expect(await endRedrive(redis, redriveHome(), prefix, redrive, "succeeded", Date.now())).toBe(false);
    expect(await run(id)).toBe("ended before it was taken");
    expect(await jobs()).toEqual([]);
    expect(await redis.pttl(redriveHome().redrive(id))).toBeGreaterThan(50_000);
    expect(await redis.exists(redriveHome().open("alice"))).toBe(0);
  });
});

describe("the pace of a redrive", () => {
  const pace = (rate: number, sinceMs: number | null) => {
    const { allowed } = paceOf({ pacedUntil: sinceMs === null ? null : 100_000 - sinceMs, plan: { rate } }, 100_000);
    return allowed;
  };

  test("begins at once, follows the clock, and catches up by at most a second", () => {
    expect([pace(10, null), pace(0.01, null), pace(1000, null)]).toEqual([1, 1, 1]);
    expect([pace(10, 0), pace(10, 99), pace(10, 100), pace(10, 550)]).toEqual([0, 0, 1, 5]);
    expect([pace(10, 1000), pace(10, 60_000), pace(1000, 60_000)]).toEqual([10, 10, 1000]);
    expect([pace(0.1, 9999), pace(0.1, 10_000), pace(0.1, 3_600_000)]).toEqual([0, 1, 1]);
  });
});
