import { openRedis } from "@millrace/shared/connect-redis.js";
import { modelKeys, newId } from "@millrace/shared/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis-url.js";
import {
  type BatchCommit,
  cancelBatch,
  commitBatch,
  finishChunk,
  readBatch,
  stageChunk,
  takeChunk,
} from "@millrace/shared/scripts/batches.js";
import { afterAll, describe, expect, inject, test } from "vitest";
import { random } from "./support/random.js";

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

  async function staged(lines: readonly number[]): Promise<string> {
    const id = newId(keys.tag);
    for (const [number, count] of lines.entries()) {
      await stageChunk(redis, keys, id, { number, lines: count, bytes: Buffer.from(`in ${number}`) }, 60_000);
    }
    return id;
  }

  async function committed(lines: readonly number[], rest: Partial<BatchCommit> = {}): Promise<string> {
    const id = await staged(lines);
    const total = lines.reduce((sum, count) => sum + count, 0);
    const outcome = await commitBatch(redis, keys, {
      ...{ id, owner: "o", nowMs: Date.now(), chunks: lines.length, lines: total, priority: 0, resultTtlMs: 60_000 },
      ...{ idempotency: null, followerJson: null, fixed: { version: "1", head: "{", tail: "}" } },
      ...rest,
    });
    expect(outcome).toEqual({ kind: "accepted", id });
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
    );
  const countsOf = async (id: string) => {
    const batch = await readBatch(redis, keys, id);
    return [batch?.succeeded, batch?.failed, batch?.canceled];
  };

  test("a chunk counts once, for whoever holds its job, however often it is finished", async () => {
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
    expect(await cancelBatch(redis, keys, id, settings)).toBeNull();
    const { json } = (await readBatch(redis, keys, id)) as { json: string };
    expect(JSON.parse(json)).toMatchObject({
      status: "partial",
      counts: { total: 5, succeeded: 4, failed: 1, pending: 0 },
    });
    expect(Number(await redis.get(keys.bulkRows))).toBe(0);
  });

  test("what is finished after a cancel is dropped", async () => {
    const id = await committed([3, 2]);
    await lock(id, 0, "mine");
    await lock(id, 1, "mine");
    expect(await finish(id, 0, "mine", 3)).toBe("written");
    const json = await cancelBatch(redis, keys, id, settings);
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

  test("no more than a window of a batch's chunks is in the queue, and each that ends lets one in, in order", async () => {
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
    await cancelBatch(redis, keys, id, settings);
  });

  test("what has expired in part is lost, not made a batch of less", async () => {
    const id = await staged([1, 1]);
    await redis.hdel(keys.batchChunks(id), "0");
    const outcome = await commitBatch(redis, keys, {
      ...{ id, owner: "o", nowMs: Date.now(), chunks: 2, lines: 2, priority: 0, resultTtlMs: 60_000 },
      ...{
        idempotency: { key: "k", bodyHash: "h" },
        followerJson: null,
        fixed: { version: "1", head: "{", tail: "}" },
      },
    });
    expect(outcome.kind).toBe("lost");
    expect(
      await redis.exists(keys.batch(id), keys.batchChunks(id), keys.batchLines(id), keys.idempotency("o", "k")),
    ).toBe(0);
  });

  test("times are written as JavaScript writes them, for 100 dates in two centuries", async () => {
    const r = random(12);
    const dates = [0, 951_782_400_000, 1_709_164_799_999, 4_102_444_800_000 - 1, 4_107_542_400_000];
    for (let i = 0; i < 95; i++) dates.push(r.below(200 * 365.2425 * 86_400_000));
    for (const nowMs of dates) {
      const id = await committed([1], { nowMs });
      const json = JSON.parse((await cancelBatch(redis, keys, id, settings)) as string);
      expect(json.created_at).toBe(new Date(nowMs).toISOString());
    }
  });
});
