import { openRedis } from "@millrace/shared/redis/connect-redis.js";
import { sweeperKey } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { holdLease } from "@millrace/shared/scripts/lease.js";
import { expect, inject, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { newPrefix } from "../support/run/prefix.js";
import { TestStack } from "../support/stack/stack.js";

const model = "slow";
const secret = `whsec_${Buffer.alloc(32, "lease").toString("base64")}`;

test("one worker ends expired predictions for all, another after its SIGKILL, each prediction once", async () => {
  const stack = await TestStack.start({ models: [model], workerEnv: { WEBHOOK_SECRET: secret } });
  const holder = () => stack.redis.get(sweeperKey(stack.prefix));
  /** Without a worker for the model, only the lease holder's sweep can end the prediction. */
  const expiring = async () => (await stack.submit(model, { x: [[1]] }, { expires_in_ms: 1 })).id as string;
  const expired = () => stack.logged("prediction expired").map((line) => line.prediction_id);

  try {
    await stack.workers[0]?.stop();
    await Promise.all([1, 2].map(() => stack.startWorker({ WORKER_ROLES: "webhooks" })));
    const first = await expiring();
    await eventually(() => expect(expired()).toEqual([first]));
    const before = await holder();
    expect(before).not.toBeNull();
    const sweeping = stack.log.find(({ message }) => message === "prediction expired")?.pid;
    const victim = stack.workers.find(({ child }) => child.pid === sweeping);
    expect(victim).toBeDefined();
    victim?.child.kill("SIGKILL");
    await victim?.exited;
    const second = await expiring();
    await eventually(() => expect(expired()).toEqual([first, second]));
    expect(await holder()).not.toBe(before);
  } finally {
    await stack.close();
  }
});

test("a lease is exclusive until it expires, and extended by its holder's calls", async () => {
  const redis = openRedis(parseRedisUrl(inject("redisUrl")), "patient", "test");
  const key = `${newPrefix()}:{lease}`;
  try {
    expect(await holdLease(redis, key, "a", 60_000)).toBe(true);
    expect(await holdLease(redis, key, "b", 60_000)).toBe(false);
    await redis.pexpire(key, 20_000);
    expect(await holdLease(redis, key, "a", 60_000)).toBe(true);
    expect(await redis.pttl(key)).toBeGreaterThan(50_000);
    await redis.pexpire(key, 1);
    await eventually(async () => expect(await holdLease(redis, key, "b", 60_000)).toBe(true));
    expect(await holdLease(redis, key, "a", 60_000)).toBe(false);
  } finally {
    redis.disconnect();
  }
});
