import { chunkJobName } from "@millrace/shared/predictions/batch.js";
import { keptEvents } from "@millrace/shared/predictions/job.js";
import type { RedrivePlan } from "@millrace/shared/predictions/redrive.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { type ModelKeys, modelKeys, redriveKeys, redrivesName } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { commitBatch } from "@millrace/shared/scripts/batches/commit-batch.js";
import { stageChunk } from "@millrace/shared/scripts/batches/stage-chunks.js";
import { makeRedrive } from "@millrace/shared/scripts/predictions/redrives.js";
import { type Acceptance, acceptPredictions } from "@millrace/shared/scripts/queue/accept.js";
import { giveBackJobs, takeJobs } from "@millrace/shared/scripts/queue/take-jobs.js";
import { Job, Queue, UnrecoverableError, Worker } from "bullmq";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from "vitest";
import { acceptanceOf } from "../support/acceptance.js";
import { addByBullMq } from "../support/add-by-bullmq.js";
import { ampleLimits } from "../support/ample-limits.js";
import { asOneQueue, contents } from "../support/queue-contents.js";
import { newPrefix } from "../support/run/prefix.js";

const model = "echo";
const lockMs = 30_000;
const token = "token";

/** A queue filled by our steps, or by BullMQ with the same jobs; BullMQ's own classes work on both. */
interface Side {
  keys: ModelKeys;
  worker: Worker;
  queue: Queue;
}

describe("BullMQ's own steps have the same effect on our queue as on BullMQ's:", () => {
  let redis: RedisClient;
  let prefix: string;
  let ours: Side;
  let theirs: Side;
  let ids: string[];

  beforeAll(() => {
    redis = openRedis(parseRedisUrl(inject("redisUrl")), "patient", "test");
  });
  afterAll(() => redis.disconnect());
  beforeEach(async () => {
    prefix = newPrefix();
    [ours, theirs] = ["ours", "bullmq"].map((name): Side => {
      const keys = modelKeys(`${prefix}-${name}`, model);
      const options = { connection: redis as never, prefix: keys.queuePrefix };
      const held = { autorun: false, lockDuration: lockMs, maxStalledCount: Number.MAX_SAFE_INTEGER };
      const queue = new Queue(model, { ...options, skipMetasUpdate: true });
      return { keys, worker: new Worker(model, null, { ...options, ...held }), queue };
    }) as [Side, Side];
    await redis.hset(`${ours.keys.queue}meta`, "opts.maxLenEvents", keptEvents);
    ids = await fill([{}, {}, {}, {}]);
  });
  afterEach(async () => {
    for (const { queue, worker } of [ours, theirs]) {
      await worker.close();
      await queue.close();
    }
    const left = await redis.keys(`${prefix}*`);
    if (left.length > 0) await redis.unlink(...left);
  });

  async function fill(mix: readonly Partial<Acceptance>[]): Promise<string[]> {
    const list = mix.map((overrides) => acceptanceOf(newId(ours.keys.tag), overrides));
    const nowMs = Date.now();
    await acceptPredictions(redis, ours.keys, list, { nowMs, limits: ampleLimits, resultTtlMs: 60_000 });
    await addByBullMq(redis, { name: model, prefix: theirs.keys.queuePrefix }, list, nowMs);
    return list.map(({ id }) => id);
  }

  /** Takes the next jobs of both queues: ours by our step, BullMQ's by its own. */
  async function take(count: number): Promise<void> {
    const { jobs = [] } = (await takeJobs(redis, ours.keys.queue, { token, count, lockMs, nowMs: Date.now() })) ?? {};
    const taken: unknown[] = [];
    for (let i = 0; i < count; i++) taken.push((await theirs.worker.getNextJob(token, { block: false }))?.id);
    expect(jobs.map(([, id]) => id)).toEqual(taken.filter((id) => id !== undefined));
  }

  const both = async (step: (side: Side) => Promise<unknown>): Promise<void> => {
    for (const side of [ours, theirs]) await step(side);
  };
  const job = async ({ queue }: Side, id: string | undefined): Promise<Job> => {
    const found = (await Job.fromId(queue, id as string)) as Job;
    // The worker sets the attempts; see `model-consumer.ts`.
    found.opts.attempts = 3;
    return found;
  };

  /** Contents of a queue, without times, and without events, which our steps do not write. */
  async function readable({ keys }: Side): Promise<Record<string, unknown>> {
    const found = asOneQueue(await contents(redis, keys.queue));
    const { events: _events, id: _id, marker: _marker, "stalled-check": _check, ...rest } = found;
    for (const [name, value] of Object.entries(rest)) {
      if (typeof value !== "object" || value === null || Array.isArray(value)) continue;
      const job = value as Record<string, unknown>;
      const { delay, finishedOn: _ended, processedOn: _begun, stacktrace: _stack, ...fields } = job;
      rest[name] = { ...fields, isDelayed: delay !== "0" };
    }
    for (const set of ["delayed", "failed"]) {
      const entries = rest[set] as string[] | undefined;
      if (entries !== undefined) rest[set] = entries.filter((_, i) => i % 2 === 0).sort();
    }
    return rest;
  }

  async function assertSameQueues(): Promise<Record<string, unknown>> {
    const left = await readable(ours);
    expect(left).toEqual(await readable(theirs));
    return left;
  }

  /** Asserts that the other jobs are taken in the same order, and that only active or ended jobs are left. */
  async function assertSameOrder(): Promise<void> {
    await take(10);
    expect(await assertSameQueues()).toMatchObject({ waits: [] });
  }

  test("the stalled check returns jobs with an expired lock, and no others", async () => {
    await take(3);
    const check = ({ worker }: Side) =>
      (worker as unknown as { moveStalledJobsToWait(): Promise<void> }).moveStalledJobsToWait();
    // The first check only notes the active jobs.
    await both(check);
    await both(({ keys }) => redis.del(`${keys.queue}${ids[0]}:lock`, `${keys.queue}${ids[1]}:lock`));
    await both(({ keys }) => redis.del(`${keys.queue}stalled-check`));
    await both(check);
    const { active, waits } = await assertSameQueues();
    expect(active).toEqual([ids[2]]);
    expect((waits as string[]).toSorted()).toEqual([ids[0], ids[1], ids[3]].toSorted());
    await assertSameOrder();
  });

  test("a lock is extended by its token alone", async () => {
    await take(1);
    await both(async (side) => {
      const key = `${side.keys.queue}${ids[0]}:lock`;
      await redis.pexpire(key, 10_000);
      expect(await (await job(side, ids[0])).extendLock("another", lockMs)).toBe(0);
      expect(await redis.pttl(key)).toBeLessThanOrEqual(10_000);
      expect(await (await job(side, ids[0])).extendLock(token, lockMs)).toBe(1);
      expect(await redis.pttl(key)).toBeGreaterThan(10_000);
    });
    await assertSameQueues();
  });

  test("a failed attempt is repeated, at once or later", async () => {
    await take(3);
    await both(async (side) => (await job(side, ids[1])).moveToFailed(new Error("again"), token));
    await both(async (side) => {
      const later = await job(side, ids[2]);
      later.opts.backoff = { type: "fixed", delay: 60_000 };
      await later.moveToFailed(new Error("later"), token);
    });
    const left = await assertSameQueues();
    expect(left).toMatchObject({ active: [ids[0]], delayed: [ids[2]] });
    expect(left.waits).toContain(ids[1]);
    await assertSameOrder();
  });

  test("a job that failed for good is kept as failed, and waits again after a retry", async () => {
    await take(2);
    await both(async (side) => (await job(side, ids[0])).moveToFailed(new UnrecoverableError("reason"), token));
    expect(await assertSameQueues()).toMatchObject({ failed: [ids[0]], active: [ids[1]] });
    await both(async (side) => (await job(side, ids[0])).retry("failed"));
    expect((await assertSameQueues()).waits).toContain(ids[0]);
    await assertSameOrder();
  });

  test("a job is delayed", async () => {
    await take(2);
    const later = Date.now() + 60_000;
    await both(async (side) => (await job(side, ids[0])).moveToDelayed(later, token));
    expect(await assertSameQueues()).toMatchObject({ delayed: [ids[0]], active: [ids[1]] });
    await assertSameOrder();
  });

  test("a delayed job is promoted", async () => {
    const [delayed] = await fill([{ delayMs: 60_000 }]);
    await both(async (side) => (await job(side, delayed)).promote());
    expect((await assertSameQueues()).waits).toContain(delayed);
    await assertSameOrder();
  });

  test("waiting, delayed and failed jobs are removed, and the others taken in order", async () => {
    const [delayed] = await fill([{ delayMs: 60_000 }]);
    await take(1);
    await both(async (side) => (await job(side, ids[0])).moveToFailed(new UnrecoverableError("reason"), token));
    for (const id of [ids[0], ids[2], delayed]) await both(async (side) => (await job(side, id)).remove());
    const left = await assertSameQueues();
    expect(left.waits).toEqual([ids[1], ids[3]]);
    expect(Object.keys(left)).not.toEqual(expect.arrayContaining([delayed]));
    await assertSameOrder();
  });

  test("a job with a priority, or beside other owners', is removed, and the jobs behind it are taken", async () => {
    const [first, second, other] = await fill([{ priority: 2 }, { priority: 3 }, { owner: "bob" }]);
    for (const id of [first, other]) {
      await (await job(ours, id)).remove();
      expect(await redis.exists(`${ours.keys.queue}${id}`)).toBe(0);
    }
    const { jobs = [] } =
      (await takeJobs(redis, ours.keys.queue, { token, count: 10, lockMs, nowMs: Date.now() })) ?? {};
    expect(jobs.map(([, id]) => id)).toEqual([...ids, second]);
    // No job waits, so the load must not count the removed ones.
    expect(await redis.exists(ours.keys.waitingLoad)).toBe(0);
  });

  test("a queue is paused and resumed", async () => {
    await both(({ queue }) => queue.pause());
    expect(await takeJobs(redis, ours.keys.queue, { token, count: 2, lockMs, nowMs: Date.now() })).toBeNull();
    await assertSameQueues();
    await both(({ queue }) => queue.resume());
    await assertSameOrder();
  });

  test("a queue is counted", async () => {
    await fill([{ delayMs: 60_000 }, { priority: 3 }]);
    await take(1);
    const counts = await ours.queue.getJobCounts("active", "delayed", "wait", "prioritized");
    expect(counts).toEqual({ active: 1, delayed: 1, wait: 3, prioritized: 1 });
    expect(counts).toEqual(await theirs.queue.getJobCounts("active", "delayed", "wait", "prioritized"));
  });

  test("the job of a redrive is added like BullMQ's own", async () => {
    const accept = { limits: { ...ampleLimits }, weight: 1, memoryPart: 1, rows: null, resultTtlMs: 60_000 };
    const filter = { model, code: null, failed_after: null, failed_before: null };
    const plan: RedrivePlan = {
      v: 1,
      filter,
      from: 0,
      to: 1,
      lots: [],
      total: 0,
      rate: 1,
      accept,
      requestId: "request",
    };
    const keys = redriveKeys(`${prefix}-ours`);
    const [id, createdAt] = [newId(keys.tag), Date.now()];
    await makeRedrive(redis, keys, { id, owner: "alice", plan, createdAt }, 5);
    const { name, data } = (await redis.hgetall(`${keys.queue}${id}`)) as { name: string; data: string };
    const queue = new Queue(redrivesName, {
      connection: redis as never,
      prefix: redriveKeys(`${prefix}-bullmq`).queuePrefix,
      skipMetasUpdate: true,
    });
    const theirs = redriveKeys(`${prefix}-bullmq`).queue;
    await redis.hset(`${theirs}meta`, "opts.maxLenEvents", keptEvents);
    await queue.add(name, JSON.parse(data), { jobId: id, timestamp: createdAt });
    await queue.close();
    expect(await contents(redis, keys.queue)).toEqual(await contents(redis, theirs));
  });

  test("the jobs of a batch's chunks are added like BullMQ's own, without events", async () => {
    const nowMs = Date.now();
    const id = newId(ours.keys.tag);
    for (const number of [0, 1, 2]) {
      await stageChunk(redis, ours.keys, id, { number, lines: 2, bytes: Buffer.from("in") }, 60_000);
    }
    const commit = { id, owner: "alice", nowMs, chunks: 3, lines: 6, priority: 0, resultTtlMs: 60_000, weight: 1 };
    const rest = {
      channelPrefix: "t",
      idempotency: null,
      followerJson: null,
      bytes: 6,
      mostFailed: null,
      version: "1",
      fixed: { head: "{", tail: "}" },
    };
    expect((await commitBatch(redis, ours.keys, { ...commit, ...rest })).kind).toBe("accepted");
    const name = theirs.keys.batchQueueName;
    const options = { connection: redis as never, prefix: theirs.keys.queuePrefix, skipMetasUpdate: true };
    const queue = new Queue(name, options);
    for (const n of [0, 1, 2]) {
      await queue.add(chunkJobName, { v: 1, b: id, n }, { jobId: `${id}-${n}`, timestamp: nowMs });
    }
    await queue.close();
    const left = asOneQueue(await contents(redis, ours.keys.batchQueue));
    const { events: _events, meta: _meta, ...bullmqs } = asOneQueue(await contents(redis, theirs.keys.batchQueue));
    expect(left).toEqual(bullmqs);
    expect(left.waits).toEqual([0, 1, 2].map((n) => `${id}-${n}`));
  });

  test("a returned job is in the place of BullMQ's moveToWait, but without an attempt", async () => {
    await take(3);
    const jobs = [ids[0], ids[1]].map((id) => ({ id: id as string, token }));
    await giveBackJobs(redis, ours.keys.queue, jobs);
    // The job taken first must be the next again, so it is returned last.
    for (const { id } of jobs.toReversed()) await (await job(theirs, id)).moveToWait(token);
    for (const { id } of jobs) {
      expect(await redis.hget(`${ours.keys.queue}${id}`, "ats")).toBe("0");
      await redis.hset(`${theirs.keys.queue}${id}`, "ats", 0);
    }
    expect((await assertSameQueues()).waits).toEqual([ids[0], ids[1], ids[3]]);
    await assertSameOrder();
  });
});
