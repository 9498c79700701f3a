import { openRedis } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { cancelBatch } from "@millrace/shared/scripts/batches/cancel-batch.js";
import { type BatchCommit, commitBatch } from "@millrace/shared/scripts/batches/commit-batch.js";
import { finishChunk } from "@millrace/shared/scripts/batches/finish-chunk.js";
import { readBatch } from "@millrace/shared/scripts/batches/read-batch.js";
import { dropStaged, type EarlyRun, stageChunk } from "@millrace/shared/scripts/batches/stage-chunks.js";
import { beginBatch, takeChunk } from "@millrace/shared/scripts/batches/take-chunk.js";
import { takeJobs } from "@millrace/shared/scripts/queue/take-jobs.js";
import { afterAll, describe, expect, inject, test } from "vitest";
import { random } from "../support/random.js";

const prefix = `t-steps-${process.pid}-${Date.now()}`;
const settings = { resultTtlMs: 60_000, channelPrefix: `${prefix}:notices:` };

describe("the steps of a batch in Redis", () => {
  const redis = openRedis(parseRedisUrl(inject("redisUrl")), "patient", "steps");
  const keys = modelKeys(prefix, "m");

  afterAll(async () => {
    for (const key of await (redis as { keys(pattern: string): Promise<string[]> }).keys(`${prefix}*`)) {
      await redis.unlink(key);
    }
    redis.disconnect();
  });

  async function staged(lines: readonly number[], early: EarlyRun | null = null): Promise<string> {
    const id = newId(keys.tag);
    for (const [number, count] of lines.entries()) {
      await stageChunk(
        redis,
        keys,
        id,
        { number, lines: count, bytes: Buffer.from(`in ${number}`) },
        60_000,
        early && { ...early, nowMs: Date.now() },
      );
    }
    return id;
  }

  const commitOf = (id: string, lines: readonly number[]): BatchCommit => ({
    ...{ id, owner: "o", nowMs: Date.now(), chunks: lines.length, priority: 0, resultTtlMs: 60_000, version: "1" },
    lines: lines.reduce((sum, count) => sum + count, 0),
    ...{ idempotency: null, followerJson: null, fixed: { head: "{", tail: "}" } },
    channelPrefix: settings.channelPrefix,
    bytes: lines.reduce((sum, _, number) => sum + `in ${number}`.length, 0),
    mostFailed: null,
    weight: 1,
  });

  async function committed(lines: readonly number[], rest: Partial<BatchCommit> = {}): Promise<string> {
    const id = await staged(lines);
    const outcome = await commitBatch(redis, keys, { ...commitOf(id, lines), ...rest });
    expect(outcome).toEqual({ kind: "accepted", id, batch: await readBatch(redis, keys, id) });
    return id;
  }

  const lock = (id: string, number: number, token: string) =>
    redis.set(`${keys.batchQueue}${id}-${number}:lock`, token);
  const finish = (id: string, number: number, token: string, succeeded: number, failed = 0) =>
    finishChunk(
      redis,
      keys,
      { id, number, token, outputs: Buffer.from(`out ${token}`), failedInputs: null, succeeded, failed },
      settings,
      Date.now(),
    );
  const countsOf = async (id: string) => {
    const batch = await readBatch(redis, keys, id);
    return [batch?.succeeded, batch?.failed, batch?.canceled];
  };

  test("a chunk counts once, for the holder of its job's lock, however often it is finished", async () => {
    const id = await committed([3, 2]);
    await lock(id, 0, "mine");
    expect(await finish(id, 0, "another's", 3)).toBe("lost");
    expect(await countsOf(id)).toEqual([0, 0, 0]);
    expect(await finish(id, 0, "mine", 2, 1)).toBe("written");
    expect(await finish(id, 0, "mine", 3)).toBe("done");
    await lock(id, 0, "next");
    expect(await finish(id, 0, "next", 3)).toBe("done");
    expect(await countsOf(id)).toEqual([2, 1, 0]);
    expect(await redis.hget(keys.batchResults(id), "0")).toBe("out mine");
    expect(await takeChunk(redis, keys, id, 0)).toBeNull();
    expect((await takeChunk(redis, keys, id, 1))?.bytes.toString()).toBe("in 1");
    await lock(id, 1, "mine");
    expect(await finish(id, 1, "mine", 2)).toBe("ended batch");
    expect(await finish(id, 1, "mine", 2)).toBe("ended");
    expect(await cancelBatch(redis, keys, id, settings, Date.now())).toBeNull();
    const { json } = (await readBatch(redis, keys, id)) as { json: string };
    expect(JSON.parse(json)).toMatchObject({
      status: "partial",
      counts: { total: 5, succeeded: 4, failed: 1, pending: 0 },
    });
    expect(Number(await redis.get(keys.bulkRows))).toBe(0);
  });

  test("outputs of a chunk finished after a cancel are dropped", async () => {
    const id = await committed([3, 2]);
    await lock(id, 0, "mine");
    await lock(id, 1, "mine");
    expect(await finish(id, 0, "mine", 3)).toBe("written");
    const json = await cancelBatch(redis, keys, id, settings, Date.now());
    expect(JSON.parse(json as string)).toMatchObject({
      status: "canceled",
      counts: { succeeded: 3, canceled: 2 },
      progress: 0.6,
    });
    expect(await finish(id, 1, "mine", 2)).toBe("ended");
    expect(await countsOf(id)).toEqual([3, 0, 2]);
    expect(await redis.hexists(keys.batchResults(id), "1")).toBe(0);
    expect(await takeChunk(redis, keys, id, 1)).toBeNull();
    expect(Number(await redis.get(keys.bulkRows))).toBe(0);
  });

  test("at most a window of a batch's chunks is queued; each finished one admits the next, in order", async () => {
    await redis.del(`${keys.batchQueue}wait`);
    const id = await committed(new Array(70).fill(1));
    const waiting = () => redis.lrange(`${keys.batchQueue}wait`, 0, -1);
    expect(await waiting()).toHaveLength(64);
    for (let number = 0; number < 10; number++) {
      await lock(id, number, "mine");
      expect(await finish(id, number, "mine", 1)).toBe("written");
    }
    const ids = (await waiting()).reverse();
    expect(ids).toEqual(Array.from({ length: 70 }, (_, number) => `${id}-${number}`));
    await cancelBatch(redis, keys, id, settings, Date.now());
  });

  test("owners' chunks take turns by rows, however much each has uploaded, and pending rows are counted", async () => {
    const counts = () => redis.hgetall(keys.bulkRowsOf);
    // Other tests' batches leave jobs in the queue, since no worker takes any.
    const emptyQueue = async () => {
      for (const pattern of [`${keys.batchQueue}*`, `${keys.base}/fair*`]) {
        const left = await (redis as { keys(pattern: string): Promise<string[]> }).keys(pattern);
        if (left.length > 0) await redis.unlink(...left);
      }
    };
    await emptyQueue();
    const large = await committed(Array(70).fill(100), { owner: "alice" });
    const more = await committed(Array(70).fill(100), { owner: "alice" });
    const small = await committed([50, 50, 50], { owner: "bob" });
    expect(await counts()).toEqual({ alice: "14000", bob: "150" });
    const taken =
      (await takeJobs(redis, keys.batchQueue, { token: "t", count: 6, lockMs: 30_000, nowMs: Date.now() }))?.jobs.map(
        ([, id]) => id as string,
      ) ?? [];
    expect(taken.filter((id) => id.startsWith(small)).length).toBe(3);
    expect(taken.filter((id) => id.startsWith(large))).toEqual([0, 1, 2].map((number) => `${large}-${number}`));
    for (let number = 0; number < 3; number++) {
      await lock(small, number, "t");
      await finish(small, number, "t", 50);
    }
    expect(await counts()).toEqual({ alice: "14000" });
    for (const id of [large, more]) await cancelBatch(redis, keys, id, settings, Date.now());
    expect(await counts()).toEqual({});
    await emptyQueue();
  });

  test("an upload that has expired in part is lost, not committed as a smaller batch", async () => {
    const id = await staged([1, 1]);
    await redis.hdel(keys.batchChunks(id), "0");
    const outcome = await commitBatch(redis, keys, {
      ...commitOf(id, [1, 1]),
      idempotency: { key: "k", bodyHash: "h" },
    });
    expect(outcome.kind).toBe("lost");
    expect(
      await redis.exists(keys.batch(id), keys.batchChunks(id), keys.batchLines(id), keys.idempotency("o", "k")),
    ).toBe(0);
  });

  const allOf = (id: string) => [
    ...[keys.batch(id), keys.batchChunks(id), keys.batchLines(id), keys.batchResults(id), keys.batchFailed(id)],
  ];
  const early = { uploader: "o", weight: 1, version: "1", priority: 0 };

  test("chunks that run before the commit count after it, and are not readable before", async () => {
    await redis.del(`${keys.batchQueue}wait`);
    const id = await staged([3, 2, 1], early);
    expect(await redis.lrange(`${keys.batchQueue}wait`, 0, -1)).toEqual([`${id}-2`, `${id}-1`, `${id}-0`]);
    expect(await takeChunk(redis, keys, id, 1)).toMatchObject({ version: "1", owner: "o" });
    await lock(id, 1, "mine");
    expect(await finish(id, 1, "mine", 1, 1)).toBe("written");
    expect(await finish(id, 1, "mine", 2)).toBe("done");
    expect(await readBatch(redis, keys, id)).toBeNull();
    expect(await cancelBatch(redis, keys, id, settings, Date.now())).toBeNull();
    expect(Number(await redis.get(keys.bulkRows))).toBe(0);
    for (const key of allOf(id).slice(0, 4)) expect(await redis.pttl(key), key).toBeGreaterThan(0);

    const { batch } = await commitBatch(redis, keys, commitOf(id, [3, 2, 1]));
    expect(batch).toMatchObject({ succeeded: 1, failed: 1, total: 6, json: null });
    for (const key of allOf(id).slice(0, 4)) expect(await redis.pttl(key), key).toBe(-1);
    expect(await redis.lrange(`${keys.batchQueue}wait`, 0, -1)).toEqual([`${id}-2`, `${id}-1`, `${id}-0`]);
    expect(await countsOf(id)).toEqual([1, 1, 0]);
    expect(Number(await redis.get(keys.bulkRows))).toBe(4);
    await lock(id, 0, "mine");
    expect(await finish(id, 0, "mine", 3)).toBe("written");
    await lock(id, 2, "mine");
    expect(await finish(id, 2, "mine", 1)).toBe("ended batch");
    expect(await countsOf(id)).toEqual([5, 1, 0]);
    expect(Number(await redis.get(keys.bulkRows))).toBe(0);
  });

  test("a batch whose chunks are all done at the commit ends there, and starts no sooner than created", async () => {
    const id = await staged([3, 2], early);
    for (const number of [1, 0]) {
      expect((await takeChunk(redis, keys, id, number))?.begun).toBe(number === 0);
      await beginBatch(redis, keys, id, Date.now());
      await lock(id, number, "mine");
      expect(await finish(id, number, "mine", 3 - number)).toBe("written");
    }
    const commit = { ...commitOf(id, [3, 2]), nowMs: Date.now() + 1000 };
    const { batch } = await commitBatch(redis, keys, commit);
    expect(batch).toEqual(await readBatch(redis, keys, id));
    const { json } = batch as { json: string };
    await beginBatch(redis, keys, id, Date.now());
    expect(await readBatch(redis, keys, id)).toEqual(batch);
    const at = new Date(commit.nowMs).toISOString();
    expect(JSON.parse(json)).toMatchObject({
      ...{ status: "succeeded", counts: { total: 5, succeeded: 5, pending: 0 }, progress: 1 },
      ...{ created_at: at, started_at: at, finished_at: at },
    });
    // Five rows in slightly more than a second.
    expect(JSON.parse(json).rows_per_second).toBeLessThanOrEqual(5);
    expect(JSON.parse(json).rows_per_second).toBeGreaterThan(0);
    expect(Number(await redis.get(keys.bulkRows))).toBe(0);
    expect(await redis.exists(keys.batchChunks(id))).toBe(0);
    for (const key of [keys.batch(id), keys.batchLines(id), keys.batchResults(id)]) {
      expect(await redis.pttl(key), key).toBeGreaterThan(0);
    }
  });

  test("chunks of an upload that was dropped, or committed as another version, leave nothing", async () => {
    const dropped = await staged([3, 2], early);
    const other = await staged([3, 2], { uploader: "o", weight: 1, version: "2", priority: 0 });
    for (const id of [dropped, other]) {
      await takeChunk(redis, keys, id, 0);
      await lock(id, 0, "mine");
      await lock(id, 1, "mine");
      expect(await finish(id, 0, "mine", 2, 1)).toBe("written");
    }
    await dropStaged(redis, keys, dropped);
    expect((await commitBatch(redis, keys, commitOf(other, [3, 2]))).kind).toBe("lost");
    for (const id of [dropped, other]) {
      expect(await takeChunk(redis, keys, id, 1)).toBeNull();
      expect(await finish(id, 1, "mine", 2)).toBe("ended");
      await beginBatch(redis, keys, id, Date.now());
      expect(await redis.exists(...allOf(id))).toBe(0);
    }
  });

  test("at most a window of chunks is queued before the commit and at it", async () => {
    await redis.del(`${keys.batchQueue}wait`);
    const lines = new Array(140).fill(1);
    const id = await staged(lines.slice(0, 70), early);
    const waiting = async () => (await redis.lrange(`${keys.batchQueue}wait`, 0, -1)).reverse();
    const first = (count: number) => Array.from({ length: count }, (_, number) => `${id}-${number}`);
    expect(await waiting()).toEqual(first(64));
    for (let number = 0; number < 10; number++) {
      await lock(id, number, "mine");
      expect(await finish(id, number, "mine", 1)).toBe("written");
    }
    // Only 70 are staged yet.
    expect(await waiting()).toEqual(first(70));
    for (let number = 70; number < 140; number++) {
      await stageChunk(redis, keys, id, { number, lines: 1, bytes: Buffer.from("in") }, 60_000, {
        ...early,
        nowMs: Date.now(),
      });
    }
    expect(await waiting()).toEqual(first(74));
    for (let number = 10; number < 20; number++) {
      await lock(id, number, "mine");
      await finish(id, number, "mine", 1);
    }
    expect((await commitBatch(redis, keys, commitOf(id, lines))).kind).toBe("accepted");
    expect(await waiting()).toEqual(first(84));
    await cancelBatch(redis, keys, id, settings, Date.now());
  });

  test("times are formatted like JavaScript's toISOString, for 100 dates in two centuries", async () => {
    const r = random(12);
    const dates = [0, 951_782_400_000, 1_709_164_799_999, 4_102_444_800_000 - 1, 4_107_542_400_000];
    for (let i = 0; i < 95; i++) dates.push(r.below(200 * 365.2425 * 86_400_000));
    for (const nowMs of dates) {
      const id = await committed([1], { nowMs });
      const json = JSON.parse((await cancelBatch(redis, keys, id, settings, Date.now())) as string);
      expect(json.created_at).toBe(new Date(nowMs).toISOString());
    }
  });
});
