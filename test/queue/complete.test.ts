import { keptEvents, keptJobs, predictionJobName } from "@millrace/shared/predictions/job.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { type ModelKeys, modelKeys } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { type Acceptance, acceptPredictions } from "@millrace/shared/scripts/queue/accept.js";
import { type Completion, completeJobs } from "@millrace/shared/scripts/queue/complete.js";
import { giveBackJobs, takeJobs } from "@millrace/shared/scripts/queue/take-jobs.js";
import { completingBackend } from "@millrace/workers/queue/completing-backend.js";
import { StockingWorker } from "@millrace/workers/queue/stocking-worker.js";
import { createRedisBackend, type Job, raw2NextJobData, UnrecoverableError, Worker } from "bullmq";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from "vitest";
import { acceptanceOf } from "../support/acceptance.js";
import { addByBullMq } from "../support/add-by-bullmq.js";
import { ampleLimits } from "../support/ample-limits.js";
import { eventually } from "../support/eventually.js";
import { asOneQueue, contents } from "../support/queue-contents.js";
import { machineClock } from "../support/redis/machine-clock.js";
import { newPrefix } from "../support/run/prefix.js";

const model = "echo";
const lockMs = 30_000;
/** Two identical queues, whose jobs we end in one and BullMQ ends in the other. */
type Side = "ours" | "bullmq";
const sides: Side[] = ["ours", "bullmq"];

describe("ending jobs in one step", () => {
  let redis: RedisClient;
  let prefix: string;
  let nowMs: number;
  let workers: Worker[];
  /** A worker of each queue that takes jobs on request and runs none. */
  const takers: Partial<Record<Side, Worker>> = {};
  /** BullMQ's active jobs, by id. */
  let taken: Map<string, Job>;

  beforeAll(() => {
    redis = openRedis(parseRedisUrl(inject("redisUrl")), "patient", "test");
  });
  afterAll(() => redis.disconnect());
  beforeEach(() => {
    prefix = newPrefix();
    nowMs = Date.now();
    workers = sides.map((side) => {
      const { queuePrefix } = keysOf(side);
      const options = { connection: redis as never, prefix: queuePrefix, autorun: false, lockDuration: lockMs };
      takers[side] = new Worker(model, null, options);
      return takers[side];
    });
    taken = new Map();
  });
  afterEach(async () => {
    await Promise.all(workers.map((worker) => worker.close()));
    const left = await redis.keys(`${prefix}*`);
    if (left.length > 0) await redis.unlink(...left);
  });

  const keysOf = (side: Side): ModelKeys => modelKeys(`${prefix}-${side}`, model);
  const queueOf = (side: Side): string => keysOf(side).queue;

  const acceptance = (overrides: Partial<Acceptance> = {}): Acceptance =>
    acceptanceOf(newId(keysOf("ours").tag), overrides);
  const plain = (count: number): Acceptance[] => Array.from({ length: count }, () => acceptance());

  /** Puts the same jobs into both queues; returns their ids. */
  async function fill(list: readonly Acceptance[], acceptedAt = nowMs): Promise<string[]> {
    const settings = { nowMs: acceptedAt, limits: ampleLimits, resultTtlMs: 60_000 };
    // Set by a worker's announcement.
    await redis.hset(`${queueOf("ours")}meta`, "opts.maxLenEvents", keptEvents);
    await acceptPredictions(redis, keysOf("ours"), list, settings);
    await addByBullMq(redis, { name: model, prefix: keysOf("bullmq").queuePrefix }, list, acceptedAt);
    return list.map(({ id }) => id);
  }

  /** Adds jobs with a delay of one second, accepted two seconds ago, so that they are due. */
  const fillDue = (list: readonly Partial<Acceptance>[]) =>
    fill(
      list.map((overrides) => acceptance({ delayMs: 1000, ...overrides })),
      nowMs - 2000,
    );

  /** BullMQ takes the next `count` jobs of both queues, marked for the stalled check like by its workers. */
  async function take(count: number): Promise<string[]> {
    const ids: string[][] = [];
    for (const side of sides) {
      const worker = takers[side] as Worker;
      const own: string[] = [];
      for (let i = 0; i < count; i++) {
        const job = (await worker.getNextJob(`token-${i}`, { block: false })) as Job;
        own.push(job.id as string);
        if (side === "bullmq") taken.set(job.id as string, job);
      }
      if (own.length > 0) await redis.sadd(`${queueOf(side)}stalled`, ...own);
      ids.push(own);
    }
    expect(ids[0]).toEqual(ids[1]);
    return ids[0] as string[];
  }

  const completion = (id: string, i: number, overrides: Partial<Completion> = {}): Completion => ({
    id,
    token: `token-${i}`,
    keep: true,
    returnValueJson: '"succeeded"',
    takeNext: true,
    ...overrides,
  });

  /** Ends the job by BullMQ: its error code, nothing, or the next job. */
  async function completeByBullMq({
    failedReason,
    id,
    keep,
    returnValueJson,
    takeNext,
    token,
  }: Completion): Promise<unknown> {
    const job = taken.get(id) as Job;
    job.opts.removeOnComplete = keep ? { count: keptJobs } : true;
    job.opts.removeOnFail = { count: keptJobs };
    try {
      if (failedReason !== undefined) {
        return await job.moveToFailed(new UnrecoverableError(failedReason), token, takeNext);
      }
      return await job.moveToCompleted(JSON.parse(returnValueJson), token, takeNext);
    } catch (fault) {
      return (fault as { code: number }).code;
    }
  }

  /** Ends the same jobs in both queues; returns the outcomes in one form. */
  async function complete(completions: readonly Completion[]) {
    const ours = await completeJobs(redis, queueOf("ours"), completions, { lockMs, nowMs: Date.now() });
    const bullmq: unknown[] = [];
    for (const one of completions) bullmq.push(await completeByBullMq(one));
    return {
      ours: ours.map((answer) => summary(Array.isArray(answer) ? raw2NextJobData(answer) : answer)),
      bullmq: bullmq.map(summary),
      raw: ours,
    };
  }

  const idsOf = (answers: readonly ReturnType<typeof summary>[]) => answers.map((answer) => answer.job?.id ?? null);

  async function assertSameQueues(): Promise<Record<string, unknown>> {
    const [ours, bullmq] = [await readable(redis, queueOf("ours")), await readable(redis, queueOf("bullmq"))];
    expect(ours).toEqual(bullmq);
    return ours;
  }

  const mixes: [string, (ids: string[]) => Completion[]][] = [
    ["all kept", (ids) => ids.map((id, i) => completion(id, i))],
    ["none kept", (ids) => ids.map((id, i) => completion(id, i, { keep: false }))],
    ["some kept", (ids) => ids.map((id, i) => completion(id, i, { keep: i % 3 === 0 }))],
    ["none followed by another", (ids) => ids.map((id, i) => completion(id, i, { takeNext: false }))],
    ["some followed by another", (ids) => ids.map((id, i) => completion(id, i, { takeNext: i % 2 === 0 }))],
    ["only some of the active", (ids) => ids.map((id, i) => completion(id, i)).filter((_, i) => i % 2 === 1)],
    ["in another order", (ids) => ids.map((id, i) => completion(id, i, { keep: i < 2 })).reverse()],
    [
      "with other return values",
      (ids) => ids.map((id, i) => completion(id, i, { returnValueJson: `{"ü":[${i},"\\n"]}` })),
    ],
    ["a single one", (ids) => [completion(ids[0] as string, 0)]],
  ];
  const backlogs: [string, () => Promise<unknown>][] = [
    ["nothing behind them", async () => undefined],
    ["more waiting jobs", () => fill(plain(9))],
    ["fewer waiting jobs", () => fill(plain(1))],
    ["prioritized jobs", () => fill([7, 3, 1000, 3, 1, 2, 9].map((priority) => acceptance({ priority })))],
    ["a waiting and a prioritized job", () => fill([acceptance({ priority: 5 }), acceptance()])],
    ["delayed jobs", () => fill([60_000, 50_000].map((delayMs) => acceptance({ delayMs })))],
    ["due jobs", () => fillDue([{}, { priority: 4 }, { delayMs: 500 }, { delayMs: 500, priority: 2 }])],
    [
      "all kinds",
      async () => {
        await fillDue([{ priority: 3 }, {}]);
        await fill([acceptance({ priority: 3 }), acceptance({ delayMs: 60_000 }), acceptance()]);
      },
    ],
  ];

  test.each(backlogs)("leaves and takes the same as BullMQ, with %s", async (_backlog, addBacklog) => {
    for (const [_mix, completionsOf] of mixes) {
      await fill(plain(5));
      const ids = await take(5);
      await addBacklog();
      const completions = completionsOf(ids);
      const { bullmq, ours } = await complete(completions);
      expect(ours).toEqual(bullmq);
      const left = await assertSameQueues();
      for (const { id, keep } of completions) {
        expect([id, left[id] !== undefined, left[`${id}:lock`]]).toEqual([id, keep, undefined]);
      }
      const found = await redis.keys(`${prefix}*`);
      await redis.unlink(...found);
    }
  });

  test.each(backlogs)("takes in one step the same jobs as BullMQ one by one, with %s", async (_backlog, addBacklog) => {
    await fill(plain(3));
    await addBacklog();
    for (const count of [2, 5, 50]) {
      const { jobs = [] } =
        (await takeJobs(redis, queueOf("ours"), { token: "token", count, lockMs, nowMs: Date.now() })) ?? {};
      const theirs: unknown[] = [];
      for (let i = 0; i < count; i++) {
        const job = await (takers.bullmq as Worker).getNextJob("token", { block: false });
        if (job === undefined) break;
        theirs.push(job.id);
      }
      expect(jobs.map(([, id]) => id)).toEqual(theirs);
      const [ours, bullmq] = [await readable(redis, queueOf("ours")), await readable(redis, queueOf("bullmq"))];
      // A marker only wakes workers; our step writes one more if a worker may sleep while jobs wait.
      expect({ ...ours, marker: null }).toEqual({ ...bullmq, marker: null });
    }
  });

  test("returns jobs that were taken but not begun to the head of the queue, without an attempt", async () => {
    const ids = await fill(plain(8));
    const before = await readable(redis, queueOf("ours"));
    const { jobs = [] } =
      (await takeJobs(redis, queueOf("ours"), { token: "token", count: 5, lockMs, nowMs: Date.now() })) ?? {};
    const taken = jobs.map(([, id]) => ({ id: id as string, token: "token" }));
    expect(taken.map(({ id }) => id)).toEqual(ids.slice(0, 5));
    // One of them now has another token.
    await redis.set(`${queueOf("ours")}${ids[1]}:lock`, "another");
    await giveBackJobs(redis, queueOf("ours"), taken);
    const after = await readable(redis, queueOf("ours"));
    expect(after.active).toEqual([ids[1]]);
    expect(after.waits).toEqual((before.waits as string[]).filter((id) => id !== ids[1]));
    expect(Object.keys(after).filter((name) => name.endsWith(":lock"))).toEqual([`${ids[1]}:lock`]);
    expect(after[ids[0] as string]).toMatchObject({ ats: "0" });
  });

  test("a worker starts the jobs that it has taken before it takes more, however fast more arrive", async () => {
    let added = 0;
    const begunAt: number[] = [];
    class Flooded extends StockingWorker<string> {
      protected override async moveToActive(token: string, name?: string) {
        // Each take finds one more job; BullMQ's own worker would take up to its concurrency before starting any.
        if (added < 200) {
          added += 1;
          await fill(plain(1));
        }
        return super.moveToActive(token, name);
      }
    }
    await fill(plain(1));
    const worker = new Flooded(
      model,
      queueOf("ours"),
      async () => {
        begunAt.push(added);
        return "done";
      },
      redis,
      {
        connection: redis as never,
        prefix: keysOf("ours").queuePrefix,
        concurrency: 100,
        lockDuration: lockMs,
        clock: machineClock,
      },
    );
    workers.push(worker);
    await eventually(() => expect(begunAt).toHaveLength(201));
    expect(begunAt[0]).toBeLessThan(5);
  });

  test("keeps the newest jobs only, and removes the others with all of their keys", async () => {
    const old = Array.from({ length: keptJobs - 1 }, (_, i) => `old-${i}`);
    for (const side of sides) {
      const pipeline = redis.pipeline();
      for (const [i, id] of old.entries()) {
        pipeline.zadd(`${queueOf(side)}completed`, 1000 + i, id);
        pipeline.hset(`${queueOf(side)}${id}`, "name", predictionJobName);
      }
      await pipeline.exec();
    }
    await fill(plain(4));
    const ids = await take(4);
    // The job that is not kept displaces no other.
    await complete(ids.map((id, i) => completion(id, i, { keep: i !== 1 })));
    const left = await assertSameQueues();
    expect(left.completed).toHaveLength(keptJobs);
    expect(left.completed).toEqual([...old.slice(2), ids[0], ids[2], ids[3]].sort());
    expect(Object.keys(left).filter((name) => name.startsWith("old-"))).toHaveLength(keptJobs - 3);
  });

  test("fails jobs like BullMQ without stack traces, keeps the newest only, and takes others instead", async () => {
    const old = Array.from({ length: keptJobs - 1 }, (_, i) => `old-${i}`);
    for (const side of sides) {
      await redis.zadd(`${queueOf(side)}failed`, ...old.flatMap((id, i) => [1000 + i, id]));
    }
    await fill(plain(4));
    const ids = await take(3);
    const { bullmq, ours } = await complete(ids.map((id, i) => completion(id, i, { failedReason: `reason ${i}` })));
    expect(ours).toEqual(bullmq);
    for (const id of ids) await redis.hdel(`${queueOf("bullmq")}${id}`, "stacktrace");
    const left = await assertSameQueues();
    expect(left.failed).toEqual([...old.slice(2), ...ids].sort());
  });

  test("returns a job without a result, as after a failover that lost it, and ends the others", async () => {
    await fill(plain(3));
    const [lost, kept, failed] = (await take(3)) as [string, string, string];
    const { queue, result } = keysOf("ours");
    await redis.set(result(kept), "there");
    const completions = [
      completion(lost, 0, { proof: result(lost), takeNext: false, keep: false }),
      completion(kept, 1, { proof: result(kept), takeNext: false, keep: false }),
      completion(failed, 2, { proof: result(failed), takeNext: false, failedReason: "reason" }),
    ];
    expect(await completeJobs(redis, queue, completions, { lockMs, nowMs: Date.now() })).toEqual([0, 0, 0]);
    expect(await redis.lrange(`${queue}wait`, 0, -1)).toEqual([lost, failed]);
    expect(await redis.llen(`${queue}active`)).toBe(0);
    for (const id of [lost, failed]) {
      expect(await redis.exists(`${queue}${id}:lock`)).toBe(0);
      expect(await redis.hget(`${queue}${id}`, "finishedOn")).toBeNull();
    }
    expect(await redis.exists(`${queue}${kept}`, `${queue}${kept}:lock`)).toBe(0);
    const again = await takeJobs(redis, queue, { token: "again", count: 2, lockMs, nowMs: Date.now() });
    expect(again?.jobs.map(([, id]) => id)).toEqual([failed, lost]);
  });

  test("returns a chunk without outputs", async () => {
    await fill([acceptance({ id: "batch-7" }), acceptance({ id: "batch-8" })]);
    const ids = await take(2);
    const { batchResults, queue } = keysOf("ours");
    await redis.hset(batchResults("batch"), "8", "outputs");
    const proof = batchResults("batch");
    const completions = ids.map((id, i) => completion(id, i, { proof, takeNext: false, keep: false }));
    expect(await completeJobs(redis, queue, completions, { lockMs, nowMs: Date.now() })).toEqual([0, 0]);
    expect(await redis.lrange(`${queue}wait`, 0, -1)).toEqual(["batch-7"]);
  });

  test("refuses a job with a missing lock, another's lock, or that is not active, and ends the others", async () => {
    await fill(plain(5));
    const [missing, anothers, inactive, held, last] = (await take(5)) as [string, string, string, string, string];
    for (const side of sides) {
      await redis.del(`${queueOf(side)}${missing}:lock`);
      await redis.set(`${queueOf(side)}${anothers}:lock`, "another");
      await redis.lrem(`${queueOf(side)}active`, 0, inactive);
    }
    const waiting = await fill(plain(3));
    const before = await readable(redis, queueOf("ours"));
    const { bullmq, ours } = await complete(
      [missing, anothers, inactive, held, last].map((id, i) => completion(id, i)),
    );
    expect(ours).toEqual(bullmq);
    expect(ours.slice(0, 3).map(({ code }) => code)).toEqual([-2, -6, -3]);
    // No job is taken in place of a refused one.
    expect(idsOf(ours)).toEqual([null, null, null, waiting[0], waiting[1]]);
    const after = await readable(redis, queueOf("ours"));
    expect(after.active).toEqual([waiting[1], waiting[0], anothers, missing]);
    expect(after.completed).toEqual([held, last].sort());
    expect(after.stalled).toEqual([missing, anothers, inactive].sort());
    for (const id of [missing, anothers, inactive]) {
      expect([after[id], after[`${id}:lock`]]).toEqual([before[id], before[`${id}:lock`]]);
    }
  });

  test("refuses a job that has already ended, even with the same token", async () => {
    await fill(plain(2));
    const [first, second] = (await take(2)) as [string, string];
    await complete([completion(first, 0, { keep: false }), completion(second, 1)]);
    const left = await assertSameQueues();
    const again = [completion(first, 0), completion(second, 1, { returnValueJson: '"other"' })];
    expect(await completeJobs(redis, queueOf("ours"), again, { lockMs, nowMs: Date.now() })).toEqual([-2, -2]);
    expect(await readable(redis, queueOf("ours"))).toEqual(left);
  });

  test("takes waiting jobs first in, first out, and then prioritized ones, the lowest number first", async () => {
    await fill(plain(6));
    const ids = await take(6);
    const [nine, first, one, nineToo, second] = await fill([
      acceptance({ priority: 9 }),
      acceptance(),
      acceptance({ priority: 1 }),
      acceptance({ priority: 9 }),
      acceptance(),
    ]);
    const { ours } = await complete(ids.map((id, i) => completion(id, i)));
    expect(idsOf(ours)).toEqual([first, second, one, nine, nineToo, null]);
    for (const [i, id] of [first, second, one, nine, nineToo].entries()) {
      const lock = `${queueOf("ours")}${id}:lock`;
      expect(await redis.get(lock)).toBe(`token-${i}`);
      expect(await redis.pttl(lock)).toBeGreaterThan(lockMs - 10_000);
      expect(await redis.pttl(lock)).toBeLessThanOrEqual(lockMs);
      expect(ours[i]?.job).toMatchObject({ attemptsStarted: 1 });
    }
    await assertSameQueues();
  });

  test("counts another attempt of a job that was taken before", async () => {
    await fill(plain(2));
    const [, stalled] = (await take(2)) as [string, string];
    for (const side of sides) {
      await redis.lrem(`${queueOf(side)}active`, 0, stalled);
      await redis.rpush(`${queueOf(side)}wait`, stalled);
    }
    const { bullmq, ours } = await complete([...taken.keys()].slice(0, 1).map((id, i) => completion(id, i)));
    expect(ours).toEqual(bullmq);
    expect(ours[0]?.job).toMatchObject({ id: stalled, attemptsStarted: 2 });
    await assertSameQueues();
  });

  test("promotes due jobs only", async () => {
    await fill(plain(2));
    const ids = await take(2);
    const [later] = await fill([acceptance({ delayMs: 60_000 })]);
    const [due, prioritized, earlier] = await fillDue([{}, { priority: 3 }, { delayMs: 500 }]);
    const { ours } = await complete(ids.map((id, i) => completion(id, i)));
    expect(idsOf(ours)).toEqual([earlier, due]);
    const left = await assertSameQueues();
    expect(left.waits).toEqual([prioritized]);
    expect((left.delayed as string[])[0]).toBe(later);
  });

  test("takes no job from a paused queue or beyond its concurrency, but still ends jobs", async () => {
    for (const field of ["paused", "concurrency"]) {
      await fill(plain(2));
      const ids = await take(2);
      const waiting = await fill(plain(2));
      for (const side of sides) await redis.hset(`${queueOf(side)}meta`, field, 1);
      const { ours } = await complete(ids.map((id, i) => completion(id, i)));
      expect(idsOf(ours)).toEqual([null, null]);
      expect(ours.map(({ code }) => code)).toEqual([0, 0]);
      const left = await readable(redis, queueOf("ours"));
      expect(left).toMatchObject({ completed: [...ids].sort(), waits: waiting });
      expect(left.active).toBeUndefined();
      if (field === "paused") await assertSameQueues();
      await redis.unlink(...(await redis.keys(`${prefix}*`)));
    }
  });

  test("returns the due time of the next delayed job if there is none to take", async () => {
    await fill([acceptance(), acceptance()]);
    const ids = await take(2);
    await fill([acceptance({ delayMs: 90_000 }), acceptance({ delayMs: 60_000, priority: 2 })]);
    const { bullmq, ours } = await complete(ids.map((id, i) => completion(id, i)));
    expect(ours).toEqual(bullmq);
    for (const { delayUntil, job } of ours) expect([job, delayUntil]).toEqual([null, nowMs + 60_000]);
    await assertSameQueues();
  });

  test("a worker with these steps leaves the same queue as BullMQ's own, and runs each job once", async () => {
    const list = Array.from({ length: 300 }, (_, i) =>
      acceptance(i % 5 === 0 ? { priority: 1 + (i % 7) } : i % 11 === 0 ? { delayMs: 20 + i } : {}),
    );
    const ids = await fill(list);
    for (const side of sides) {
      const ran: string[] = [];
      class SometimesKeeping extends Worker<unknown, string> {
        protected override createJob(raw: Parameters<Worker["createJob"]>[0], id: string): Job<unknown, string> {
          const job = super.createJob(raw, id) as Job<unknown, string>;
          if (ids.indexOf(id) % 3 === 0) job.opts.removeOnComplete = true;
          return job;
        }
      }
      const worker = new SometimesKeeping(
        model,
        async (job) => {
          ran.push(job.id as string);
          // Jobs taken together end in one turn of the event loop, like those of one run.
          await new Promise((resolve) => setImmediate(resolve));
          return `end of ${job.id}`;
        },
        {
          connection: redis as never,
          prefix: keysOf(side).queuePrefix,
          concurrency: 16,
          lockDuration: lockMs,
          removeOnComplete: { count: keptJobs },
        },
        side === "ours" ? completingBackend(redis, queueOf("ours"), lockMs, machineClock) : createRedisBackend,
      );
      workers.push(worker);
      const faults: Error[] = [];
      worker.on("error", (fault) => faults.push(fault));
      await eventually(async () => {
        expect(ran).toHaveLength(ids.length);
        expect(await redis.llen(`${queueOf(side)}active`)).toBe(0);
      });
      await worker.close();
      expect(ran.toSorted()).toEqual(ids.toSorted());
      expect(faults).toEqual([]);
    }
    // Whether a worker slept or checked for stalled jobs last depends on timing.
    const [ours, bullmq] = await Promise.all(
      sides.map(async (side) => {
        const { marker: _marker, "stalled-check": _check, ...left } = await readable(redis, queueOf(side));
        return left;
      }),
    );
    expect(ours).toEqual(bullmq);
    expect(Object.keys(ours ?? {}).filter((name) => name.endsWith(":lock"))).toEqual([]);
    expect(ours?.completed).toEqual(ids.filter((_, i) => i % 3 !== 0).sort());
  });
});

/** The answer of a step that ends a job: a code, and the job taken in its place or the time of the next due one. */
function summary(answer: unknown) {
  if (!Array.isArray(answer)) return { code: (answer as number | undefined) ?? 0, job: null, delayUntil: 0 };
  const [json, id, , delayUntil] = answer as [Record<string, unknown>?, string?, number?, number?];
  if (!json) return { code: 0, job: null, delayUntil: delayUntil ?? 0 };
  const { lane: _lane, opts: rawOptions, priority: _priority, processedOn, share: _share, ...rest } = json;
  const { attempts: _attempts, jobId: _id, timestamp: _timestamp, ...opts } = rawOptions as Record<string, unknown>;
  expect(Math.abs(Date.now() - Number(processedOn))).toBeLessThan(10_000);
  return { code: 0, job: { ...rest, opts, id }, delayUntil: delayUntil ?? 0 };
}

/** Contents of a queue, without its event stream and with times replaced. */
async function readable(redis: RedisClient, queue: string): Promise<Record<string, unknown>> {
  // Our steps count a promoted job as an arrival, BullMQ does not.
  const { events: _events, id: _id, ...found } = asOneQueue(await contents(redis, queue));
  for (const [name, value] of Object.entries(found)) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) continue;
    const fields = value as Record<string, string>;
    for (const field of ["processedOn", "finishedOn"]) {
      if (fields[field] === undefined) continue;
      expect(Math.abs(Date.now() - Number(fields[field]))).toBeLessThan(60_000);
      fields[field] = "a moment ago";
    }
    found[name] = fields;
  }
  // Scores are end times; jobs with equal scores are ordered by id, so compare the sorted ids.
  for (const set of ["completed", "failed"]) {
    const members = found[set];
    if (Array.isArray(members)) found[set] = members.filter((_, i) => i % 2 === 0).sort();
  }
  return found;
}
