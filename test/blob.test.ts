import { randomBytes } from "node:crypto";
import { copyBlob, dropBlob, readBlob, sendBlob, unclaimedTtlMs, writeBlob } from "@millrace/shared/blob.js";
import { openRedis, type RedisClient } from "@millrace/shared/connect-redis.js";
import { modelKeys, newId } from "@millrace/shared/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis-url.js";
import { acceptPredictions } from "@millrace/shared/scripts/accept.js";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { plenty } from "./support/plenty.js";

const MiB = 1 << 20;

describe("what is too large for a job", () => {
  const keys = modelKeys(`t-${randomBytes(5).toString("hex")}`, "echo");
  let redis: RedisClient;

  beforeAll(() => {
    redis = openRedis(parseRedisUrl(inject("redisUrl")), "patient", "test");
  });
  afterAll(async () => {
    const left = await redis.keys(`${keys.base}*`);
    if (left.length > 0) await redis.unlink(...left);
    redis.disconnect();
  });

  const accept = async (id: string, pieces: number) => {
    const dataJson = `{"v":1,"o":"alice","ver":"1","x":"","b":${MiB}}`;
    const nobody = { watcher: null, dedup: null, idempotency: null, follower: null };
    const acceptance = { id, owner: "alice", dataJson, delayMs: 0, priority: 0, ...nobody, pieces };
    const settings = { nowMs: Date.now(), limits: plenty, resultTtlMs: 60_000 };
    return (await acceptPredictions(redis, keys, [acceptance], settings))[0]?.kind;
  };

  test.each([1, MiB, MiB + 65_536, MiB + 65_537, 5 * MiB + 3])("comes back as it was: %i bytes", async (bytes) => {
    const id = newId(keys.tag);
    const blob = randomBytes(bytes);
    await writeBlob(redis, keys, id, blob, 500_000);
    expect((await readBlob(redis, keys, id, bytes))?.equals(blob)).toBe(true);
    expect(await redis.pttl(keys.blob(id))).toBeGreaterThan(unclaimedTtlMs);
    const copy = newId(keys.tag);
    expect(await copyBlob(redis, keys, id, copy, 1000)).toBe(await redis.llen(keys.blob(id)));
    expect((await readBlob(redis, keys, copy, bytes))?.equals(blob)).toBe(true);
    expect(await redis.pttl(keys.blob(copy))).toBeLessThanOrEqual(1000);
    await dropBlob(redis, keys, id);
    expect(await readBlob(redis, keys, id, bytes)).toBeNull();
  });

  test("is nothing where it is not whole", async () => {
    const id = newId(keys.tag);
    await writeBlob(redis, keys, id, randomBytes(3 * MiB), 1000);
    await redis.rpop(keys.blob(id));
    expect(await readBlob(redis, keys, id, 3 * MiB)).toBeNull();
    expect(await copyBlob(redis, keys, newId(keys.tag), newId(keys.tag), 1000)).toBe(0);
  });

  test("goes by itself unless it is accepted, and is not accepted unless it is whole", async () => {
    const [accepted, short, gone] = [newId(keys.tag), newId(keys.tag), newId(keys.tag)];
    for (const id of [accepted, short]) {
      const { pieces, written } = await sendBlob(redis, keys, id, randomBytes(2 * MiB), unclaimedTtlMs);
      expect(pieces).toBe(2);
      await written;
      expect(await redis.pttl(keys.blob(id))).toBeGreaterThan(0);
    }
    await redis.rpop(keys.blob(short));
    expect(await accept(short, 2)).toBe("gone");
    expect(await accept(gone, 2)).toBe("gone");
    expect(await redis.exists(`${keys.queue}${short}`, `${keys.queue}${gone}`)).toBe(0);
    expect(await redis.pttl(keys.blob(short))).toBeGreaterThan(0);
    expect(await accept(accepted, 2)).toBe("queued");
    expect(await redis.pttl(keys.blob(accepted))).toBe(-1);
  });
});
