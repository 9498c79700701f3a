import { randomBytes } from "node:crypto";
import { type AddressInfo, connect, createServer } from "node:net";
import { copyBlob, dropBlob, readBlob, sendBlob, unclaimedTtlMs, writeBlob } from "@millrace/shared/redis/blob.js";
import { openRedis, type RedisClient, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { acceptPredictions } from "@millrace/shared/scripts/queue/accept.js";
import { openLog } from "@millrace/shared/service/log.js";
import { createBlobKeeper } from "@millrace/workers/jobs/blob-keeper.js";
import { createByteBudget } from "@millrace/workers/jobs/byte-budget.js";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { acceptanceOf } from "../support/acceptance.js";
import { ampleLimits } from "../support/ample-limits.js";
import { newPrefix } from "../support/run/prefix.js";

const MiB = 1 << 20;

describe("a blob, for data too large for a job", () => {
  const keys = modelKeys(newPrefix(), "echo");
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
    const settings = { nowMs: Date.now(), limits: ampleLimits, resultTtlMs: 60_000 };
    return (await acceptPredictions(redis, keys, [acceptanceOf(id, { dataJson, pieces })], settings))[0]?.kind;
  };

  test.each([1, MiB, MiB + 65_536, MiB + 65_537, 5 * MiB + 3])("is read unchanged: %i bytes", async (bytes) => {
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

  test("reads as null if it is incomplete", async () => {
    const id = newId(keys.tag);
    await writeBlob(redis, keys, id, randomBytes(3 * MiB), 1000);
    await redis.rpop(keys.blob(id));
    expect(await readBlob(redis, keys, id, 3 * MiB)).toBeNull();
    expect(await copyBlob(redis, keys, newId(keys.tag), newId(keys.tag), 1000)).toBe(0);
  });

  test("expires unless it is accepted, and is accepted only if it is complete", async () => {
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

  test("leaves no key without expiry if its connection breaks between a piece and its TTL", async () => {
    const id = newId(keys.tag);
    const line = await breakingLine({ before: "pexpire" });
    const failFast = openRedis(parseRedisUrl(line.url), "fail-fast", "test");
    failFast.on("error", () => undefined);
    await whenReady(failFast, 10_000);
    const { written } = await sendBlob(failFast, keys, id, randomBytes(100_000), unclaimedTtlMs);
    await expect(written).rejects.toThrow();
    failFast.disconnect();
    await line.close();
    expect(line.breaks).toBe(1);
    // -1: no expiry. Redis executes the rest of the broken connection's commands before this one.
    expect(await redis.pttl(keys.blob(id))).not.toBe(-1);
  });

  test("is read unchanged if its connection broke before Redis' answer to a piece", async () => {
    const line = await breakingLine({ answerTo: "rpush" });
    const patient = openRedis(parseRedisUrl(line.url), "patient", "test");
    patient.on("error", () => undefined);
    await whenReady(patient, 10_000);
    const log = openLog("test", "error");
    const memory = createByteBudget(100 * MiB);
    const keeper = createBlobKeeper({ redis: patient, keys, memory, resultTtlSeconds: 60, log });
    const pack = randomBytes(5 * MiB + 3);
    const kept = (await keeper.keep(pack)) as { blob: string; bytes: number };
    expect(line.breaks).toBe(1);
    expect((await readBlob(redis, keys, kept.blob, kept.bytes))?.equals(pack)).toBe(true);
    patient.disconnect();
    await line.close();
  });
});

/**
 * A proxy to Redis that breaks once: before it forwards the first command of that name, or at the first answer after
 * such a command.
 */
async function breakingLine(at: { before: string } | { answerTo: string }) {
  const target = parseRedisUrl(inject("redisUrl")).hosts[0] as { host: string; port: number };
  let breaks = 0;
  const server = createServer((client) => {
    const upstream = connect(target.port, target.host);
    let asked = false;
    const broken = () => {
      breaks += 1;
      for (const socket of [client, upstream]) socket.destroy();
    };
    for (const socket of [client, upstream]) {
      socket.on("error", () => undefined);
      socket.on("close", () => {
        client.destroy();
        upstream.destroy();
      });
    }
    client.on("data", (data: Buffer) => {
      const found = data.indexOf("before" in at ? at.before : at.answerTo);
      if (breaks > 0 || found < 0) upstream.write(data);
      else if ("before" in at) {
        // Forwards the commands before it.
        upstream.end(data.subarray(0, data.lastIndexOf("*", found)), () => broken());
      } else {
        asked = true;
        upstream.write(data);
      }
    });
    upstream.on("data", (data: Buffer) => {
      if (asked && breaks === 0) broken();
      else client.write(data);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get breaks() {
      return breaks;
    },
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}
