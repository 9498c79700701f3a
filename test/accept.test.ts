import { randomBytes } from "node:crypto";
import { openRedis, type RedisClient } from "@millrace/shared/connect-redis.js";
import { predictionJobName } from "@millrace/shared/job.js";
import { modelKeys, newPredictionId } from "@millrace/shared/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis-url.js";
import { type Acceptance, acceptPrediction } from "@millrace/shared/scripts/accept.js";
import { Queue, Worker } from "bullmq";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from "vitest";

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
    prefix = `t-${randomBytes(5).toString("hex")}`;
  });
  afterEach(async () => {
    const left = await redis.keys(`${prefix}*`);
    if (left.length > 0) await redis.unlink(...left);
  });

  const acceptance = (overrides: Partial<Acceptance> = {}): Acceptance => ({
    id: newPredictionId(keys().tag),
    owner: "alice",
    dataJson: '{"v":1,"o":"alice","ver":"1","x":"AA=="}',
    nowMs: Date.now(),
    delayMs: 0,
    priority: 0,
    maxDepth: 100,
    watcher: null,
    resultTtlMs: 60_000,
    ...overrides,
  });

  /** Adds what `accepted` says to a queue of BullMQ's own under another prefix, by its own `Queue.add`. */
  async function addByBullMq(accepted: readonly Acceptance[]): Promise<string> {
    const queuePrefix = `${prefix}-bullmq:{${keys().tag}}`;
    const queue = new Queue(model, { connection: redis as never, prefix: queuePrefix, skipMetasUpdate: true });
    for (const [i, { dataJson, delayMs, id, nowMs, priority }] of accepted.entries()) {
      await queue.add(
        predictionJobName,
        { q: i + 1, ...JSON.parse(dataJson) },
        {
          jobId: id,
          timestamp: nowMs,
          ...(delayMs > 0 && { delay: delayMs }),
          ...(priority > 0 && { priority }),
        },
      );
    }
    await queue.close();
    return `${queuePrefix}:${model}:`;
  }

  const mixes: [string, Partial<Acceptance>[]][] = [
    ["in order of arrival", [{}, {}, {}]],
    ["by priority", [{ priority: 3 }, { priority: 1 }, { priority: 1000 }, { priority: 3 }]],
    ["delayed", [{ delayMs: 60_000 }, { delayMs: 30_000 }, { delayMs: 30_000, priority: 2 }]],
    ["of all kinds mixed", [{ delayMs: 5000 }, {}, { priority: 7 }, {}, { priority: 2, delayMs: 100 }]],
  ];

  test.each(mixes)("leaves in Redis what BullMQ's own Queue.add leaves: jobs %s", async (_kind, mix) => {
    const accepted = mix.map((overrides) => acceptance(overrides));
    for (const one of accepted) await acceptPrediction(redis, keys(), one);
    const theirs = await addByBullMq(accepted);
    const [ours, bullmqs] = [await contents(redis, keys().queue), await contents(redis, theirs)];
    expect(ours).toEqual(bullmqs);
    expect(ours).not.toEqual({});
  });

  test("a worker of BullMQ takes what was accepted first in, first out, and prioritized ones behind", async () => {
    const accepted = [{ priority: 9 }, {}, { priority: 1 }, {}].map((overrides) => acceptance(overrides));
    for (const one of accepted) await acceptPrediction(redis, keys(), one);
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

  test("a queue that is full refuses, whatever fills it, and a refusal leaves nothing at all behind", async () => {
    for (const overrides of [{}, { priority: 1 }, { delayMs: 60_000 }]) {
      expect(await acceptPrediction(redis, keys(), acceptance(overrides))).toMatchObject({ accepted: true });
    }
    const before = await contents(redis, `${prefix}:`);
    const refused = acceptance({ maxDepth: 3, owner: "bob", watcher: { apiId: "api", forMs: 1000 } });
    expect(await acceptPrediction(redis, keys(), refused)).toEqual({ accepted: false, depth: 3 });
    expect(await contents(redis, `${prefix}:`)).toEqual(before);
  });

  test("notes the owner, who waits and for how long, in the same step", async () => {
    const one = acceptance({ watcher: { apiId: "api-1", forMs: 12_000 } });
    const position = await acceptPrediction(redis, keys(), one);
    expect(position).toEqual({ accepted: true, position: 1 });
    expect(await redis.zscore(keys().owned("alice"), one.id)).toBe(`${one.nowMs}`);
    expect(await redis.smembers(keys().watchers(one.id))).toEqual(["api-1"]);
    const ttl = await redis.pttl(keys().watchers(one.id));
    expect(ttl).toBeGreaterThan(10_000);
    expect(ttl).toBeLessThanOrEqual(12_000);
    expect(await redis.pttl(keys().owned("alice"))).toBeGreaterThan(one.resultTtlMs);
  });
});

/** All keys under a prefix with their contents, by what follows it. A stream's own ids, which are times, are left out. */
async function contents(redis: RedisClient, prefix: string): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  for (const key of (await redis.keys(`${prefix}*`)).sort()) {
    const name = key.slice(prefix.length);
    const type = await redis.type(key);
    if (type === "hash") found[name] = readable(await redis.hgetall(key));
    else if (type === "list") found[name] = await redis.lrange(key, 0, -1);
    else if (type === "zset") found[name] = await redis.call("ZRANGE", key, "0", "-1", "WITHSCORES");
    else if (type === "stream") found[name] = (await redis.xrange(key, "-", "+")).map(([, fields]) => fields);
    else if (type === "set") found[name] = (await redis.smembers(key)).sort();
    else found[name] = await redis.get(key);
  }
  return found;
}

/**
 * A job's options hold what the caller of `Queue.add` said, also what is elsewhere in the job: its id, its timestamp.
 * Attempts are the manifest's, not the job's; see `workers/model-consumer.ts`.
 */
function readable(hash: Record<string, string>): Record<string, unknown> {
  if (hash.opts === undefined) return hash;
  const { attempts: _attempts, jobId: _id, timestamp: _timestamp, ...opts } = JSON.parse(hash.opts);
  return { ...hash, data: JSON.parse(hash.data as string), opts };
}
