import { runStore } from "@millrace/cli/store.js";
import { openRedis, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys, storeMarkerKey } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { StoreMarker } from "@millrace/shared/redis/store-marker.js";
import { openLog } from "@millrace/shared/service/log.js";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { scrape } from "../support/http/scrape.js";
import { startOwnCluster } from "../support/redis/own-cluster.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { newPrefix } from "../support/run/prefix.js";
import { readiness } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";

const model = "echo-int64";
const input = { x: [[1, 2, 3]] };
/** Within this a swap is to be noticed, in ms; the rest is for a busy machine. */
const noticedMs = 2000 + 3000;

describe("a store that is emptied", () => {
  let store: OwnRedis;
  let stack: TestStack;

  beforeAll(async () => {
    store = await OwnRedis.start();
    stack = await TestStack.start({ models: [model], apis: 2, redisUrl: store.url });
  });
  afterAll(async () => {
    await stack?.close().finally(() => store.close());
  });

  const worker = () => stack.workers[0] as TestStack["workers"][number];
  const bases = () => [...stack.apis.map(({ url }) => url), `http://127.0.0.1:${worker().port}`];
  const statuses = () => Promise.all(bases().map(async (base) => (await fetch(`${base}/ready`)).status));
  const accept = () => runStore(["accept"], { REDIS_URL: store.url, REDIS_KEY_PREFIX: stack.prefix }, () => undefined);
  const until = (status: number, withinMs = noticedMs) =>
    eventually(async () => expect(await statuses()).toEqual(bases().map(() => status)), withinMs);
  const swaps = () => stack.logged("store swapped");
  const flush = () => (stack.redis as Redis).flushall();

  test("a first start, a further one, and a restart of Redis with its data are no swap", async () => {
    await until(200);
    await store.kill();
    await eventually(async () => expect((await fetch(`${stack.url}/ready`)).status).toBe(503));
    await store.resume();
    await until(200, 15_000);
    expect(await (stack.redis as Redis).get(storeMarkerKey(stack.prefix))).toMatch(/^[0-9a-f]{24}$/);
    expect(swaps()).toEqual([]);
    for (const base of bases()) expect(await scrape(base, "millrace_store_swapped")).toBe(0);
  });

  test("is noticed by every API and worker, which refuse work until an operator accepts it", async () => {
    const { id } = (await stack.predict(model, input)).body;
    await flush();
    await until(503);
    for (const base of bases()) expect(await scrape(base, "millrace_store_swapped")).toBe(1);
    const { body: ready } = await stack.get("/ready", { as: null });
    expect(ready).toMatchObject({ status: "not_ready", store_swapped: expect.stringContaining("store accept") });
    expect((await readiness(worker())).store_swapped).toContain("emptied");
    for (const answer of [
      await stack.post(`/v1/models/${model}/predictions`, { input }),
      await stack.post(`/v1/models/${model}/batches`, { inputs: [input] }),
      await stack.post("/v1/failures/redrive", {}),
      await stack.get(`/v1/predictions/${id}`),
    ]) {
      expect([answer.status, answer.body.code]).toEqual([503, "store_swapped"]);
      expect(answer.headers.get("retry-after")).not.toBeNull();
    }
    expect((await stack.get("/v2/health/ready", { as: null })).status).not.toBe(200);
    expect((await stack.get("/health", { as: null })).status).toBe(200);
    // One line each, not one a check.
    await eventually(() => expect(new Set(swaps().map(({ pid }) => pid)).size).toBe(3));
    expect(swaps()).toHaveLength(3);
  });

  test("is not taken for a new one by a process that starts later and remembers nothing", async () => {
    await stack.startApi();
    await until(503);
  });

  test("goes on after `store accept`, with the models of living workers announced again", async () => {
    expect(await accept()).toBe(0);
    await until(200);
    for (const { url } of stack.apis) {
      const answer = await eventually(async () => {
        const found = await stack.predict(model, input, {}, { url });
        expect(found.status).toBe(200);
        return found;
      });
      expect(answer.body.status).toBe("succeeded");
    }
    for (const base of bases()) expect(await scrape(base, "millrace_store_swapped")).toBe(0);
    expect(stack.logged("swapped store accepted")).toHaveLength(4);
  });

  test("is noticed again after an acceptance, which is of one store only", async () => {
    await flush();
    await until(503);
    await accept();
    await until(200);
  });

  test("comes back by itself when the known store does, and takes nothing from another meanwhile", async () => {
    // An API reads the announcements every two seconds.
    const waiting = await eventually(() => stack.submit(model, input, { delay_ms: 3_600_000 }));
    const due = await stack.submit(model, input, { delay_ms: 5000 });
    const before = swaps().length;
    const marker = (await (stack.redis as Redis).get(storeMarkerKey(stack.prefix))) as string;
    // Another store answers under the same address: one with a marker of its own.
    await (stack.redis as Redis).set(storeMarkerKey(stack.prefix), "0".repeat(24));
    await until(503);
    expect((await readiness(worker())).store_swapped).toContain("another marker");
    const job = `${modelKeys(stack.prefix, model).queue}${due.id}`;
    await eventually(async () => {
      const [seconds] = (await stack.redis.time()).map(Number) as [number];
      expect(seconds * 1000).toBeGreaterThan(Date.parse(due.created_at) + 7000);
    });
    expect(await stack.redis.hmget(job, "delay", "ats")).toEqual(["5000", null]);
    await (stack.redis as Redis).set(storeMarkerKey(stack.prefix), marker);
    await until(200);
    expect((await stack.final(due.id)).status).toBe("succeeded");
    expect(swaps().length).toBe(before + 4);
    expect(stack.logged("the known store is back")).toHaveLength(4);
    expect((await stack.get(`/v1/predictions/${waiting.id}`)).body.status).toBe("scheduled");
  });

  test("`store accept` of a store that was not swapped changes nothing", async () => {
    const marker = await (stack.redis as Redis).get(storeMarkerKey(stack.prefix));
    await accept();
    expect(await (stack.redis as Redis).get(storeMarkerKey(stack.prefix))).toBe(marker);
    expect(await statuses()).toEqual(bases().map(() => 200));
  });
});

test("one emptied master of a cluster is noticed, a restarted one is no swap", async () => {
  const cluster = await startOwnCluster(3);
  const prefix = newPrefix();
  const redis = openRedis(parseRedisUrl(cluster.url), "patient", "test");
  redis.on("error", () => undefined);
  const marker = new StoreMarker(redis, prefix, openLog("api", "error"));
  const later = new StoreMarker(redis, prefix, openLog("api", "error"));
  try {
    await whenReady(redis, 20_000);
    await marker.start();
    const masters = new Set<number>();
    for (let i = 0; masters.size < 3 && i < 3; i++) {
      if (((await cluster.ask(i, "KEYS", `${prefix}:{store-*`)) as string[]).length > 0) masters.add(i);
    }
    expect(masters.size).toBe(3);
    const [, second] = cluster.nodes as [OwnRedis, OwnRedis, OwnRedis];
    await second.kill();
    await second.resume();
    await cluster.untilWhole();
    expect(marker.complaint).toBeNull();
    await cluster.ask(1, "FLUSHALL");
    await eventually(() => expect(marker.complaint).toContain("emptied"), noticedMs);
    await later.start();
    expect(later.complaint).toContain("emptied");
    await runStore(["accept"], { REDIS_URL: cluster.url, REDIS_KEY_PREFIX: prefix }, () => undefined);
    await eventually(() => expect([marker.complaint, later.complaint]).toEqual([null, null]), noticedMs);
  } finally {
    marker.close();
    later.close();
    redis.disconnect();
    await cluster.close();
  }
});
