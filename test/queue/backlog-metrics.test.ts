import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { scrape, scrapeAll } from "../support/http/scrape.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { TestStack } from "../support/stack/stack.js";

const model = "slow";
type OwnWorker = TestStack["workers"][number];

describe("metrics of the backlog", () => {
  let redis: OwnRedis;
  let stack: TestStack;
  const metric = (name: string, labels: Record<string, string> = {}) => scrape(stack.url, name, labels);

  beforeAll(async () => {
    redis = await OwnRedis.start();
    stack = await TestStack.start({ models: [model], redisUrl: redis.url });
  });
  afterAll(async () => {
    await stack.close();
    await redis.close();
  });

  test("count live workers and their slots, with 0 for a model without workers", async () => {
    await eventually(async () => expect(await metric("ml_workers_alive", { model })).toBe(1));
    const workerUrl = `http://127.0.0.1:${stack.workers[0]?.port}`;
    expect(await scrape(workerUrl, "ml_slots", { state: "configured" })).toBe(1);
    expect(await scrape(workerUrl, "ml_slots", { state: "alive" })).toBe(1);
    expect(await stack.workers[0]?.stop()).toBe(0);
    await eventually(async () => expect(await metric("ml_workers_alive", { model })).toBe(0));
  });

  test("count the age of the oldest job from the time at which it could have run", async () => {
    expect(await metric("ml_queue_oldest_age_seconds", { model })).toBe(0);
    const later = await stack.submit(model, { x: [[1]] }, { delay_ms: 600_000 });
    expect(await metric("ml_queue_oldest_age_seconds", { model })).toBe(0);
    const first = await stack.submit(model, { x: [[1]] });
    await stack.submit(model, { x: [[1]] }, { priority: 5 });
    const age = await eventually(async () => {
      const seconds = await metric("ml_queue_oldest_age_seconds", { model });
      expect(seconds).toBeGreaterThan(0);
      return seconds;
    });
    expect(age).toBeLessThanOrEqual((Date.now() - Date.parse(first.created_at)) / 1000);
    expect(await metric("ml_queue_depth", { model, state: "waiting" })).toBe(2);
    expect(await metric("ml_queue_load", { model, unit: "rows" })).toBe(3);
    expect(await metric("ml_queue_load", { model, unit: "bytes" })).toBeGreaterThan(3 * 50);
    expect(await metric("ml_queue_depth", { model, state: "scheduled" })).toBe(1);
    // Without a worker nothing promotes a due job, and an autoscaler must see it to start one.
    await stack.submit(model, { x: [[1]] }, { delay_ms: 1 });
    await eventually(async () => expect(await metric("ml_queue_depth", { model, state: "waiting" })).toBe(3));
    expect(await metric("ml_queue_depth", { model, state: "scheduled" })).toBe(1);
    await stack.post(`/v1/predictions/${later.id}/cancel`, undefined);
  });

  test("are told by one worker for all, also of models that it does not serve, when every API is dead", async () => {
    const own = await TestStack.start({ models: [model, "echo-float32"], redisUrl: redis.url });
    const [first, second] = [own.workers[0] as OwnWorker, await own.startWorker({ WORKER_MODELS: "echo-*" })];
    await own.submit(model, { x: [[1]] }, { delay_ms: 600_000 });
    for (const api of own.apis) await api.stop();
    const urls = [first, second].map(({ port }) => `http://127.0.0.1:${port}`);
    const told = () => Promise.all(urls.map((url) => scrapeAll(url)));
    const depth = `ml_queue_depth{model="${model}",state="scheduled"} 1`;
    await eventually(async () => expect((await told()).filter((text) => text.includes(depth))).toHaveLength(1));
    const texts = await told();
    expect(texts.map((text) => /^ml_redis_up 1$/m.test(text))).toEqual([true, true]);
    // The other takes over, at the latest when the lease has expired.
    const holder = texts.findIndex((text) => text.includes(depth));
    await [first, second][holder]?.stop();
    expect(await scrapeAll(urls[1 - holder] as string)).not.toContain("ml_queue_depth{");
    await own.redis.call("DEL", `${own.prefix}:{backlog}`);
    await eventually(async () => expect(await scrapeAll(urls[1 - holder] as string)).toContain(depth));
    await own.close();
  });

  test("tell how near the queue is to its limits, and how Redis persists", async () => {
    expect(await metric("ml_queue_limit_ratio", { model, limit: "jobs" })).toBeLessThan(0.01);
    expect(await metric("ml_redis_persistence_ok", { kind: "aof_write" })).toBe(1);
    expect(await metric("ml_redis_persistence_ok", { kind: "aof_rewrite" })).toBe(1);
    expect(await metric("ml_redis_aof_bytes", {})).toBeGreaterThan(0);
    expect(await metric("ml_redis_replicas", {})).toBe(0);
    const replica = await OwnRedis.start(["--replicaof", `127.0.0.1 ${redis.port}`]);
    await eventually(async () => expect(await metric("ml_redis_replicas", {})).toBe(1), 30_000);
    expect(await metric("ml_redis_replica_lag", { unit: "seconds" })).toBeLessThan(60);
    await replica.close();
    await eventually(async () => expect(await metric("ml_redis_replicas", {})).toBe(0));
  });

  test("include Redis' memory and its limit", async () => {
    expect(await metric("ml_redis_memory_bytes", { kind: "max" })).toBe(0);
    expect(await metric("ml_redis_memory_bytes", { kind: "used" })).toBeGreaterThan(500_000);
    await stack.redis.call("CONFIG", "SET", "maxmemory", "100mb");
    expect(await metric("ml_redis_memory_bytes", { kind: "max" })).toBe(100 * 1024 * 1024);
  });

  test("report an unreachable Redis, beside everything known without it", async () => {
    await eventually(async () => expect(await metric("ml_redis_up")).toBe(1));
    await redis.kill();
    await eventually(async () => expect(await metric("ml_redis_up")).toBe(0));
    expect(await metric("ml_http_request_duration_seconds_count")).toBeGreaterThan(0);
    expect(await metric("ml_queue_depth", { model })).toBe(0);
    await redis.resume();
    await eventually(async () => expect(await metric("ml_queue_depth", { model, state: "waiting" })).toBe(3));
    await eventually(async () => expect(await metric("ml_redis_up")).toBe(1));
  });
});
