import { mostInStep } from "@millrace/shared/predictions/job.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { type Acceptance, acceptPredictions, type QueueLimits } from "@millrace/shared/scripts/queue/accept.js";
import type { AcceptOutcome } from "@millrace/shared/scripts/queue/accept-outcome.js";
import { completeJobs } from "@millrace/shared/scripts/queue/complete.js";
import { giveBackJobs, takeJobs } from "@millrace/shared/scripts/queue/take-jobs.js";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from "vitest";
import { acceptanceOf, inSteps } from "../support/acceptance.js";
import { ampleLimits } from "../support/ample-limits.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { newPrefix } from "../support/run/prefix.js";
import { volume } from "../support/run/volume.js";

const token = "token";

describe("owners who share a queue", () => {
  let redis: RedisClient;
  let prefix: string;
  const keys = () => modelKeys(prefix, "echo");
  /** Owners by id, in order of arrival. */
  let ownerOf: Map<string, string>;

  beforeAll(() => {
    redis = openRedis(parseRedisUrl(inject("redisUrl")), "patient", "test");
  });
  afterAll(() => redis.disconnect());
  const renew = () => {
    prefix = newPrefix();
    ownerOf = new Map();
  };
  beforeEach(renew);
  const drop = async () => {
    const left = await redis.keys(`${prefix}*`);
    for (let i = 0; i < left.length; i += 5000) await redis.unlink(...left.slice(i, i + 5000));
  };
  afterEach(drop);

  type JobFields = Partial<Pick<Acceptance, "blobBytes" | "delayMs" | "priority" | "rows">>;
  interface Settings {
    limits?: Partial<QueueLimits>;
    weights?: Record<string, number>;
    nowMs?: number;
  }

  async function accept(owner: string, jobs: readonly JobFields[], settings: Settings = {}): Promise<AcceptOutcome[]> {
    const { limits, nowMs = Date.now(), weights } = settings;
    const given = { nowMs, limits: { ...ampleLimits, ...limits }, resultTtlMs: 60_000 };
    const outcomes: AcceptOutcome[] = [];
    for (const some of inSteps(jobs)) {
      const step = some.map((overrides): Acceptance => {
        const id = newId(keys().tag);
        ownerOf.set(id, owner);
        return acceptanceOf(id, { owner, dataJson: `{"v":1,"o":"${owner}"}`, ...overrides });
      });
      outcomes.push(
        ...(await acceptPredictions(redis, keys(), step, { ...given, weightOf: (name) => weights?.[name] ?? 1 })),
      );
    }
    return outcomes;
  }
  const plain = (count: number, fields: JobFields = {}): JobFields[] => Array.from({ length: count }, () => fields);

  async function take(count: number): Promise<string[]> {
    const ids: string[] = [];
    for (let left = count; left > 0; left -= mostInStep) {
      const taking = { token, count: Math.min(left, mostInStep), lockMs: 30_000, nowMs: Date.now() };
      const taken = await takeJobs(redis, keys().queue, taking);
      ids.push(...(taken?.jobs ?? []).map(([, id]) => id as string));
    }
    return ids;
  }
  const owners = (ids: readonly string[]) => ids.map((id) => ownerOf.get(id) as string);
  const countOf = (ids: readonly string[], owner: string) => owners(ids).filter((name) => name === owner).length;
  const end = async (ids: readonly string[]) => {
    for (const some of inSteps(ids)) {
      const ended = some.map((id) => ({ id, token, keep: false, returnValueJson: "null", takeNext: false }));
      await completeJobs(redis, keys().queue, ended, { lockMs: 30_000, nowMs: Date.now() });
    }
  };

  test("do not delay another's single job beyond second place, even with tens of thousands waiting", async () => {
    await accept("alice", plain(volume(20_000, 100_000)));
    await take(10);
    const [outcome] = await accept("bob", plain(1));
    expect(outcome).toMatchObject({ kind: "queued", position: 1 });
    expect(owners(await take(2))).toContain("bob");
  });

  test("share it evenly in any order of arrival, and by weight if they have one", async () => {
    await accept("alice", plain(300));
    await take(100);
    await accept("bob", plain(300));
    expect(Math.abs(countOf(await take(100), "bob") - 50)).toBeLessThanOrEqual(1);
    await drop();
    await accept("alice", plain(400), { weights: { alice: 3 } });
    await accept("bob", plain(400), { weights: { alice: 3 } });
    const ids: string[] = [];
    // Any number of jobs may be taken in one step.
    for (const count of [1, 1, 1, 5, 64, 28]) ids.push(...(await take(count)));
    expect(Math.abs(countOf(ids, "alice") - 75)).toBeLessThanOrEqual(1);
  });

  test("share rows, not jobs", async () => {
    await accept("alice", plain(20, { rows: 100 }));
    await accept("bob", plain(1000));
    const ids = await take(404);
    expect(Math.abs(countOf(ids, "alice") - 4)).toBeLessThanOrEqual(1);
  });

  test("gain and lose no turns by having been idle", async () => {
    await accept("alice", plain(2000));
    await take(1000);
    await accept("bob", plain(200));
    expect(Math.abs(countOf(await take(100), "bob") - 50)).toBeLessThanOrEqual(1);
    await take(100 + 100);
    // Bob has no jobs left, and later submits again.
    await take(200);
    await accept("bob", plain(100));
    expect(Math.abs(countOf(await take(100), "bob") - 50)).toBeLessThanOrEqual(1);
  });

  test("gain nothing by never having more than one waiting job", async () => {
    await accept("alice", plain(4000));
    let alice = 0;
    // Bob always has one job of a hundred rows in the queue.
    for (let i = 0; i < 20; i++) {
      await accept("bob", [{ rows: 100 }]);
      for (let bobs = 0; bobs === 0; ) {
        const ids = await take(1);
        bobs = countOf(ids, "bob");
        alice += countOf(ids, "alice");
      }
    }
    expect(alice).toBeGreaterThan(19 * 100 - 2);
  });

  test("still share evenly after ten million rows without an idle moment", async () => {
    await accept("alice", plain(2000, { rows: 5000 }));
    for (let i = 0; i < 10; i++) {
      await end(await take(199));
      await accept("alice", plain(1));
    }
    expect(Number(await redis.hget(keys().waitingLoad, "served"))).toBeGreaterThan(9_900_000);
    // Takes the last large jobs and some small ones, because a large job counts against its owner afterwards.
    await take(15);
    await accept("alice", plain(300));
    await accept("bob", plain(300));
    expect(Math.abs(countOf(await take(200), "bob") - 100)).toBeLessThanOrEqual(1);
  });

  test("get their own jobs in order of arrival, and then prioritized ones, the lowest number first", async () => {
    const mixes: Record<string, number[]> = { alice: [5, 0, 9, 0, 5], bob: [0, 1000, 0, 1, 0] };
    const expected: Record<string, string[]> = {};
    for (const [owner, priorities] of Object.entries(mixes)) {
      const before = ownerOf.size;
      await accept(
        owner,
        priorities.map((priority) => ({ priority })),
      );
      const ids = [...ownerOf.keys()].slice(before);
      const byPriority = ids.map((id, i) => ({ id, priority: priorities[i] as number }));
      expected[owner] = byPriority.toSorted((a, b) => a.priority - b.priority).map(({ id }) => id);
    }
    const ids = [...(await take(3)), ...(await take(1)), ...(await take(64))];
    for (const owner of Object.keys(mixes)) {
      expect(ids.filter((id) => ownerOf.get(id) === owner)).toEqual(expected[owner]);
    }
  });

  test("get their scheduled jobs, once due, within their own turns", async () => {
    const nowMs = Date.now() - 5000;
    await accept("alice", plain(50, { delayMs: 1000 }), { nowMs });
    await accept("bob", plain(50));
    expect(Math.abs(countOf(await take(40), "bob") - 20)).toBeLessThanOrEqual(1);
  });

  test("add no cost to a step by their number", async () => {
    // A Redis of its own, since commands of other tests would be counted too.
    const own = await OwnRedis.start();
    const [shared] = [redis];
    redis = openRedis(parseRedisUrl(own.url), "patient", "test");
    const callsOf = async (count: number) => {
      renew();
      for (let i = 0; i < count; i++) await accept(`owner-${i}`, plain(2));
      const text = async () => redis.info("commandstats");
      const sum = (info: string) =>
        [...info.matchAll(/calls=(\d+)/g)].reduce((total, [, calls]) => total + Number(calls), 0);
      const before = sum(await text());
      await take(32);
      await accept("owner-1", plain(1));
      const calls = sum(await text()) - before;
      await drop();
      return calls;
    };
    const [few, many] = [await callsOf(40), await callsOf(1000)];
    redis.disconnect();
    redis = shared;
    await own.close();
    expect(few).toBeGreaterThan(32 * 3);
    expect(Math.abs(many - few)).toBeLessThan(16);
  });

  test("get jobs that are missing in their sets too, and stale entries in the sets do no harm", async () => {
    await accept("alice", plain(5));
    await accept("bob", plain(5));
    await redis.del(keys().waitingOf("alice"), keys().waitingOwners);
    await redis.zadd(keys().waitingOwners, 0, "bob", 0, "carol");
    await redis.zadd(keys().waitingOf("bob"), 0, "gone");
    const ids = await take(64);
    expect(ids.toSorted()).toEqual([...ownerOf.keys()].toSorted());
    expect(await redis.keys(`${keys().base}/fair*`)).toEqual([]);
  });

  describe("limits", () => {
    const full = (unit: string, whose: string, held: number) => ({ kind: "full", unit, whose, held });

    test("apply to jobs, rows and bytes, of all owners and of one owner's part", async () => {
      expect(await accept("alice", plain(3, { rows: 4 }), { limits: { rows: 8 } })).toMatchObject([
        { kind: "queued" },
        { kind: "queued" },
        full("rows", "all", 8),
      ]);
      const bytes = Number(await redis.hget(keys().waitingLoad, "bytes"));
      const [first] = await accept("alice", plain(1), { limits: { bytes } });
      expect(first).toMatchObject(full("bytes", "all", bytes));
      const part = { limits: { jobs: 4, ownerPart: 0.5 } };
      expect(await accept("alice", plain(1), part)).toMatchObject([full("jobs", "own", 2)]);
      expect(await accept("bob", plain(3), part)).toMatchObject([
        { kind: "queued" },
        { kind: "queued" },
        full("jobs", "all", 4),
      ]);
    });

    test("free capacity for taken jobs, count returned ones again, and report the rate of draining", async () => {
      const limits = { rows: 20 };
      await accept("alice", plain(20), { limits });
      expect(await accept("bob", plain(1), { limits })).toMatchObject([{ ...full("rows", "all", 20), perSecond: 0 }]);
      const [kept, ...others] = await take(10);
      expect(await redis.hget(keys().waitingLoad, "rows")).toBe("10");
      await giveBackJobs(
        redis,
        keys().queue,
        others.map((id) => ({ id, token })),
      );
      expect(await redis.hgetall(keys().waitingLoad)).toMatchObject({ rows: "19", "jobs:alice": "19" });
      await end([kept as string]);
      // Moves the start of the measurement two seconds into the past.
      await redis.hset(keys().waitingLoad, "drained_since", Date.now() - 2000);
      await take(10);
      await accept("alice", plain(20), { limits });
      const [outcome] = await accept("bob", plain(1), { limits });
      expect(outcome).toMatchObject({ kind: "full", jobs: 20 });
      const { perSecond } = outcome as { perSecond: number };
      expect(perSecond).toBeGreaterThan(2);
      expect(perSecond).toBeLessThan(20);
    });
  });

  test("get each job once, with correct counts of waiting jobs, in any sequence of steps", async () => {
    const owner = fc.constantFrom("alice", "bob", "carol");
    const step = fc.oneof(
      fc.record({
        kind: fc.constant("accept" as const),
        owner,
        rows: fc.integer({ min: 1, max: 9 }),
        count: fc.integer({ min: 1, max: 5 }),
        priority: fc.integer({ min: 0, max: 3 }),
      }),
      fc.record({ kind: fc.constant("take" as const), count: fc.integer({ min: 1, max: 8 }) }),
      fc.record({ kind: fc.constant("give back" as const), count: fc.integer({ min: 1, max: 8 }) }),
      fc.record({ kind: fc.constant("end" as const), count: fc.integer({ min: 1, max: 8 }) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 30 }), async (steps) => {
        renew();
        const waiting = new Map<string, number>();
        const held = new Map<string, number>();
        const move = (ids: readonly string[], from: Map<string, number>, to: Map<string, number> | null) => {
          for (const id of ids) {
            expect(from.has(id)).toBe(true);
            to?.set(id, from.get(id) as number);
            from.delete(id);
          }
        };
        for (const one of steps) {
          if (one.kind === "accept") {
            const before = ownerOf.size;
            await accept(one.owner, plain(one.count, { rows: one.rows, priority: one.priority }));
            for (const id of [...ownerOf.keys()].slice(before)) waiting.set(id, one.rows);
          } else if (one.kind === "take") {
            const ids = await take(one.count);
            expect(ids).toHaveLength(Math.min(one.count, waiting.size));
            move(ids, waiting, held);
          } else {
            const ids = [...held.keys()].slice(0, one.count);
            if (ids.length === 0) continue;
            if (one.kind === "give back") {
              await giveBackJobs(
                redis,
                keys().queue,
                ids.map((id) => ({ id, token })),
              );
              move(ids, held, waiting);
            } else {
              await end(ids);
              move(ids, held, null);
            }
          }
          const rows = [...waiting.values()].reduce((sum, count) => sum + count, 0);
          expect(Number((await redis.hget(keys().waitingLoad, "rows")) ?? 0)).toBe(rows);
        }
        move(await take(1000), waiting, held);
        expect(waiting.size).toBe(0);
        if (held.size > 0) await end([...held.keys()]);
        expect(await redis.keys(`${keys().base}/fair*`)).toEqual([]);
        await drop();
      }),
      { numRuns: 40 },
    );
  });

  test("get their jobs in order in any sequence of arrivals and takes", async () => {
    const step = fc.record({
      owner: fc.constantFrom("alice", "bob", "carol"),
      priorities: fc.array(fc.constantFrom(0, 0, 0, 1, 7), { maxLength: 6 }),
      taken: fc.integer({ min: 0, max: 6 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
        renew();
        const waiting = new Map<string, { id: string; priority: number }[]>();
        for (const { owner, priorities, taken } of steps) {
          const before = ownerOf.size;
          await accept(
            owner,
            priorities.map((priority) => ({ priority })),
          );
          const added = [...ownerOf.keys()].slice(before).map((id, i) => ({ id, priority: priorities[i] as number }));
          const list = [...(waiting.get(owner) ?? []), ...added];
          waiting.set(
            owner,
            list.toSorted((a, b) => a.priority - b.priority),
          );
          const total = [...waiting.values()].flat().length;
          const ids = taken === 0 ? [] : await take(taken);
          expect(ids).toHaveLength(Math.min(taken, total));
          for (const id of ids) expect(waiting.get(ownerOf.get(id) as string)?.shift()?.id).toBe(id);
        }
        await drop();
      }),
      { numRuns: 60 },
    );
  });
});
