import { openRedis, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { StoreClock } from "@millrace/shared/redis/store-clock.js";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { newPrefix } from "../support/run/prefix.js";

describe("the store's clock", () => {
  const redis = openRedis(parseRedisUrl(inject("redisUrl")), "patient", "test");
  const clock = new StoreClock(redis, newPrefix());

  beforeAll(async () => {
    redis.on("error", () => undefined);
    await whenReady(redis, 10_000);
    await clock.start();
  });
  afterAll(() => {
    clock.close();
    redis.disconnect();
  });

  const storeMs = async () => {
    const [seconds, microseconds] = (await redis.time()).map(Number) as [number, number];
    return seconds * 1000 + microseconds / 1000;
  };

  test("is between two readings of the store's time", async () => {
    for (let i = 0; i < 20; i++) {
      const before = await storeMs();
      const now = clock.preciseNow();
      const after = await storeMs();
      // The measure is right up to half of its round trip, which a busy machine makes long.
      expect(now).toBeGreaterThan(before - 100);
      expect(now).toBeLessThan(after + 100);
    }
  });
});

describe("samples of the store's clock", () => {
  const redis = openRedis(parseRedisUrl("redis://127.0.0.1:1"), "patient", "test");
  redis.on("error", () => undefined);
  afterAll(() => redis.disconnect());
  const clockWith = (samples: readonly (readonly [offsetMs: number, boundMs: number])[]) => {
    const clock = new StoreClock(redis, "t");
    for (const [offsetMs, boundMs] of samples) clock.add({ offsetMs, boundMs });
    return clock.preciseNow() - performance.now();
  };

  test.each([
    [
      "the one with the shortest round trip counts",
      [
        [1000, 40],
        [1010, 1],
        [960, 50],
      ],
      1010,
    ],
    [
      "one that contradicts the earlier ones, after a step of a clock, counts at once",
      [
        [1000, 1],
        [1000, 1],
        [4600, 30],
      ],
      4600,
    ],
    [
      "a vague one beside them changes nothing",
      [
        [1000, 1],
        [1300, 400],
      ],
      1000,
    ],
    ["an old one counts no longer", [[1000, 1], ...Array.from({ length: 8 }, () => [1003, 4])], 1003],
  ] as [string, [number, number][], number][])("%s", (_is, samples, offsetMs) => {
    expect(clockWith(samples)).toBeCloseTo(offsetMs, -1);
    expect(Math.abs(clockWith(samples) - offsetMs)).toBeLessThan(1);
  });
});
