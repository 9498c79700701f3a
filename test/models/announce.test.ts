import type { Announcement } from "@millrace/shared/models/announcement.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { announceVersion } from "@millrace/shared/scripts/models/announce.js";
import { readTraffic, rollBackTraffic } from "@millrace/shared/scripts/models/traffic.js";
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test } from "vitest";
import { newPrefix } from "../support/run/prefix.js";

let redis: RedisClient;
let prefix: string;
const keys = () => modelKeys(prefix, "echo");

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

const announce = (version: string) => {
  const announcement = { v: 1, model: "echo", version, digest: `sha256:${version}` } as Announcement;
  return announceVersion(redis, prefix, keys(), announcement, "worker", Date.now());
};

test.each([
  ["nothing", null, []],
  ["an automatic split", '{"weights":null,"shadow":[]}', []],
  ["a split with shadow versions", '{"weights":null,"shadow":["7","8"]}', ["7", "8"]],
  ["a split with its members in another order", '{"shadow":["7"],"weights":null}', ["7"]],
])(
  "a new highest version takes over from %s, and a rollback returns the traffic to the previous one",
  async (_is, current, shadow) => {
    if (current !== null) await redis.hset(keys().traffic, "current", current);
    for (const version of ["1", "2"]) expect(await announce(version)).toEqual({ announced: true });
    const { previous, revision, weights } = await readTraffic(redis, keys());
    expect({ previous, revision, weights }).toEqual({
      previous: { weights: { 1: 1 }, shadow },
      revision: 1,
      weights: null,
    });
    expect(await rollBackTraffic(redis, keys(), 1, Date.now())).toBe("done");
    expect(await readTraffic(redis, keys())).toMatchObject({ weights: { 1: 1 }, shadow, previous: null });
  },
);

test("a split set by an admin stays when a new highest version is announced", async () => {
  const current = '{"shadow":[],"weights":{"1":1}}';
  await redis.hset(keys().traffic, "current", current);
  for (const version of ["1", "2"]) await announce(version);
  expect(await redis.hget(keys().traffic, "current")).toBe(current);
  expect(await redis.llen(keys().trafficHistory)).toBe(0);
});
