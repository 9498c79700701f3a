import { keptEvents } from "@millrace/shared/predictions/job.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { type Acceptance, acceptPredictions, type QueueLimits } from "@millrace/shared/scripts/queue/accept.js";
import type { AcceptOutcome } from "@millrace/shared/scripts/queue/accept-outcome.js";
import { Worker } from "bullmq";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from "vitest";
import { acceptanceOf } from "../support/acceptance.js";
import { addByBullMq } from "../support/add-by-bullmq.js";
import { ampleLimits } from "../support/ample-limits.js";
import { asOneQueue, contents } from "../support/queue-contents.js";
import { newPrefix } from "../support/run/prefix.js";

const model = "echo";

describe("accepting a prediction", () => {
  let redis: RedisClient;
  let prefix: string;
  const keys = () => modelKeys(prefix, model);

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

  const acceptance = (overrides: Partial<Acceptance> = {}): Acceptance => acceptanceOf(newId(keys().tag), overrides);
  const settings = (limits: Partial<QueueLimits> = {}) => ({
    nowMs: Date.now(),
    limits: { ...ampleLimits, ...limits },
    resultTtlMs: 60_000,
  });
  const acceptOne = async (one: Acceptance, options = settings()): Promise<AcceptOutcome> => {
    const [outcome] = await acceptPredictions(redis, keys(), [one], options);
    return outcome as AcceptOutcome;
  };

  const mixes: [string, Partial<Acceptance>[]][] = [
    ["in order of arrival", [{}, {}, {}]],
    ["by priority", [{ priority: 3 }, { priority: 1 }, { priority: 1000 }, { priority: 3 }]],
    ["delayed", [{ delayMs: 60_000 }, { delayMs: 30_000 }, { delayMs: 30_000, priority: 2 }]],
    ["of all kinds mixed", [{ delayMs: 5000 }, {}, { priority: 7 }, {}, { priority: 2, delayMs: 100 }]],
  ];

  test.each(mixes.flatMap(([kind, mix]) => [[kind, "one by one", mix] as const, [kind, "in one step", mix] as const]))(
    "leaves the same in Redis as BullMQ's own Queue.add: jobs %s, %s",
    async (_kind, way, mix) => {
      const accepted = mix.map((overrides) => acceptance(overrides));
      const options = settings();
      // Set by a worker's announcement, without which no API accepts.
      await redis.hset(`${keys().queue}meta`, "opts.maxLenEvents", keptEvents);
      for (const step of way === "in one step" ? [accepted] : accepted.map((one) => [one])) {
        await acceptPredictions(redis, keys(), step, options);
      }
      const theirs = `${prefix}-bullmq:{${keys().tag}}`;
      await addByBullMq(redis, { name: model, prefix: theirs }, accepted, options.nowMs);
      const [{ events, ...ours }, { events: all, ...bullmqs }] = [
        asOneQueue(await contents(redis, keys().queue)),
        asOneQueue(await contents(redis, `${theirs}:${model}:`)),
      ];
      expect(ours).toEqual(bullmqs);
      expect(Object.keys(ours)).toEqual(expect.arrayContaining(accepted.map(({ id }) => id)));
      // Only delayed jobs are written to the event stream, since nothing reads the rest.
      const delayed = accepted.filter(({ delayMs }) => delayMs > 0).map(({ id }) => id);
      expect(events ?? []).toEqual((all as string[][]).filter((fields) => delayed.some((id) => fields.includes(id))));
    },
  );

  test("a BullMQ worker takes accepted jobs first in, first out, and then the prioritized ones", async () => {
    const accepted = [{ priority: 9 }, {}, { priority: 1 }, {}].map((overrides) => acceptance(overrides));
    for (const one of accepted) await acceptOne(one);
    const taken: [string, unknown][] = [];
    await new Promise<void>((resolve) => {
      const worker = new Worker(
        model,
        async (job) => {
          taken.push([job.id as string, job.data]);
        },
        { connection: redis as never, prefix: keys().queuePrefix },
      );
      worker.on("drained", () => worker.close().then(() => resolve()));
    });
    expect(taken).toEqual(
      [1, 3, 2, 0].map((i) => [accepted[i]?.id, { q: i + 1, ...JSON.parse(accepted[i]?.dataJson as string) }]),
    );
  });

  test("a full queue refuses, whatever kind of jobs fill it, and a refusal leaves nothing behind", async () => {
    for (const overrides of [{}, { priority: 1 }, { delayMs: 60_000 }]) {
      expect(await acceptOne(acceptance(overrides))).toMatchObject({ kind: "queued" });
    }
    const before = await contents(redis, `${prefix}:`);
    const refused = acceptance({
      owner: "bob",
      watcher: "api",
      dedup: "hash",
      idempotency: { key: "key", bodyHash: "body" },
      follower: { json: "{}", wantsStart: true },
    });
    expect(await acceptOne(refused, settings({ jobs: 3 }))).toMatchObject({ kind: "full", unit: "jobs", held: 3 });
    expect(await contents(redis, `${prefix}:`)).toEqual(before);
  });

  test("stores owner, watcher, webhook and idempotency key in the same step", async () => {
    const follower = { json: '{"owner":"alice"}', wantsStart: true };
    const idempotency = { key: "key-1", bodyHash: "body" };
    const one = acceptance({ watcher: "api-1", dedup: "hash", idempotency, follower });
    const options = settings();
    expect(await acceptOne(one, options)).toEqual({ kind: "queued", position: 1 });
    expect(await redis.zscore(keys().owned("alice"), one.id)).toBe(`${options.nowMs}`);
    expect(await redis.pttl(keys().owned("alice"))).toBeGreaterThan(options.resultTtlMs);
    // Watchers and webhooks are stored without expiry, until the end.
    expect(await redis.lrange(keys().interest(one.id), 0, -1)).toEqual(["wapi-1", `f${follower.json}`]);
    expect(await redis.pttl(keys().interest(one.id))).toBe(-1);
    expect(await redis.smembers(keys().starts)).toEqual([one.id]);
    expect(await redis.get(keys().dedup("hash"))).toBe(`p${one.id}`);
    const idempotencyKey = keys().idempotency("alice", "key-1");
    expect(await redis.get(idempotencyKey)).toBe(`body|${one.id}`);
    expect(await redis.pttl(idempotencyKey)).toBeGreaterThan(86_000_000);
    expect(await redis.pttl(idempotencyKey)).toBeLessThanOrEqual(86_400_000);
  });

  test.each([
    ["this release", true],
    ["the previous one, with its expiry only in its data and in the index", false],
  ])("does not join an expired prediction of %s", async (_release, hasField) => {
    const nowMs = Date.now();
    const data = { x: "AA==", m: { e: 1 }, e: nowMs + 1000, ver: "1", o: "alice", v: 1 };
    const expiring = acceptance({ dedup: "hash", dataJson: JSON.stringify(data), expiresAtMs: data.e });
    expect(await acceptOne(expiring, { ...settings(), nowMs })).toMatchObject({ kind: "queued" });
    expect(await redis.zscore(keys().expiring, expiring.id)).toBe(`${data.e}`);
    if (!hasField) expect(await redis.hdel(`${keys().queue}${expiring.id}`, "expires")).toBe(1);
    const joining = acceptance({ dedup: "hash" });
    const joined = await acceptOne(joining, { ...settings(), nowMs: data.e - 1 });
    expect(joined).toEqual({ kind: "joined", id: expiring.id });
    const late = await acceptOne(acceptance({ dedup: "hash" }), { ...settings(), nowMs: data.e });
    expect(late).toMatchObject({ kind: "queued" });
  });

  test.each(["one by one", "in one step"])(
    "adds no job for an identical submission or a used idempotency key: %s",
    async (way) => {
      const key = (bodyHash: string) => ({ key: "key", bodyHash });
      const first = acceptance({ dedup: "hash", idempotency: key("body") });
      const list = [
        first,
        acceptance({ dedup: "hash", watcher: "api-2" }),
        acceptance({ idempotency: key("body") }),
        acceptance({ idempotency: key("another") }),
        acceptance({ owner: "bob", idempotency: key("another") }),
        acceptance({ dedup: "other" }),
      ];
      const steps = way === "in one step" ? [list] : list.map((one) => [one]);
      const outcomes: AcceptOutcome[] = [];
      for (const step of steps) outcomes.push(...(await acceptPredictions(redis, keys(), step, settings())));
      expect(outcomes).toEqual([
        { kind: "queued", position: 1 },
        { kind: "joined", id: first.id },
        { kind: "replayed", id: first.id, joined: false },
        { kind: "mismatch" },
        { kind: "queued", position: 1 },
        { kind: "queued", position: 3 },
      ]);
      const waiting = [0, 4, 5].map((i) => list[i]?.id as string);
      const { waits } = asOneQueue(await contents(redis, keys().queue));
      expect((waits as string[]).toSorted()).toEqual(waiting.toSorted());
      expect(await redis.lrange(keys().interest(first.id), 0, -1)).toEqual(["wapi-2"]);
      for (const i of [1, 2, 3]) expect(await redis.exists(`${keys().queue}${list[i]?.id}`)).toBe(0);
      const owned = (await redis.call("ZRANGE", keys().owned("alice"), "0", "-1")) as string[];
      expect(owned.sort()).toEqual([first.id, list[5]?.id].sort());
    },
  );
});
