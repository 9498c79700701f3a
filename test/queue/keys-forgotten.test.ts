import { modelKeys } from "@millrace/shared/redis/keys.js";
import { watchPrediction } from "@millrace/shared/scripts/followers/watch.js";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver, secretOf } from "../support/http/receiver.js";
import { TestStack } from "../support/stack/stack.js";

const models = ["echo-int64", "slow"];
const events = ["prediction.started", "prediction.completed"];

describe("after the result time", () => {
  let stack: TestStack;
  let receiver: Receiver;

  beforeAll(async () => {
    receiver = await Receiver.start(({ path }) => ({ status: path === "/gone" ? 410 : 204 }));
    stack = await TestStack.start({
      models,
      env: { RESULT_TTL_SECONDS: "3", WEBHOOK_SECRET: secretOf(9), WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
    });
  });
  afterAll(async () => {
    await stack?.close();
    await receiver?.close();
  });

  /** Keys of predictions, batches, chunks, deliveries and cached outputs, except those kept longer on purpose. */
  async function leftOver(): Promise<string[]> {
    const redis = stack.redis as Redis;
    const kept = new Set<string>();
    for (const { batchQueue, queue, webhookQueue } of models.map((model) => modelKeys(stack.prefix, model))) {
      for (const name of [batchQueue, queue, webhookQueue]) {
        // Jobs shown on the queue page.
        for (const set of ["completed", "failed"]) {
          for (const id of (await redis.call("ZRANGE", `${name}${set}`, "0", "-1")) as string[])
            kept.add(`${name}${id}`);
        }
      }
    }
    const left: string[] = [];
    for await (const found of redis.scanStream({ match: `${stack.prefix}:*`, count: 1000 })) left.push(...found);
    return left
      .filter((key) => /[0-9a-z]{28}|\/dedup:/.test(key) && !kept.has(key) && !key.includes("/idempotency:"))
      .sort();
  }

  test("no keys are left of predictions, batches and deliveries with any end, except on the queue page", async () => {
    const hook = (path: string) => ({ webhook: { url: receiver.url(path), events } });
    const echo = { x: [[1, 2, 3]] };
    const large = { x: Array.from({ length: 6000 }, (_, i) => [i, 1, 2]) };
    await stack.predict("echo-int64", echo, hook("/told"), { headers: { "idempotency-key": "forgotten" } });
    await stack.predict("echo-int64", { x: [[2, 2, 2]] }, { ...hook("/cached"), cache: true });
    await stack.predict("echo-int64", { x: [[2, 2, 2]] }, { ...hook("/cached"), cache: true });
    await stack.predict("echo-int64", large, hook("/gone"));
    const running = await stack.submit("slow", { x: [[1500]] }, hook("/running"));
    const joined = { cache: true, ...hook("/joined") };
    await Promise.all(
      [1, 2, 3].map(() => stack.post("/v1/models/slow/predictions", { input: { x: [[5]] }, ...joined })),
    );
    const expiring = await stack.submit("slow", { x: [[6]] }, { expires_in_ms: 100, ...hook("/expiring") });
    const canceled = [
      await stack.submit("slow", { x: [[7]] }, { priority: 3, ...hook("/canceled") }),
      await stack.submit("echo-int64", large, { delay_ms: 2000 }),
    ];
    for (const { id } of canceled) {
      expect((await stack.post(`/v1/predictions/${id}/cancel`, undefined)).status).toBe(200);
    }
    const batches = ["echo-int64", "slow"].map((model) => `/v1/models/${model}/batches`) as [string, string];
    const inputs = Array.from({ length: 1500 }, (_, i) => (i % 500 === 7 ? { x: "bad" } : echo));
    const whole = await stack.post(batches[0], { inputs, webhook: { url: receiver.url("/batch") } });
    const cut = await stack.post(batches[1], { inputs: [{ x: [[800]] }, { x: [[900]] }] });
    expect([whole.status, cut.status]).toEqual([202, 202]);
    expect((await stack.post(`/v1/batches/${cut.body.id}/cancel`, undefined)).status).toBe(200);
    expect(await leftOver()).not.toEqual([]);
    await receiver.received("/batch");
    await receiver.received("/running", 2);
    await receiver.received("/joined", 2);
    await receiver.received("/expiring");
    await stack.get(`/v1/predictions/${running.id}`);
    await stack.get(`/v1/predictions/${expiring.id}?wait=1`);
    await eventually(async () => expect(await leftOver()).toEqual([]), 40_000);
  });

  test("a watch that begins just after the end leaves no key", async () => {
    const keys = modelKeys(stack.prefix, "slow");
    const { id } = (await stack.predict("slow", { x: [[3]] })).body;
    await watchPrediction(stack.redis, keys, id, "an API", { start: true, result: keys.result(id) });
    expect(await stack.redis.exists(keys.interest(id))).toBe(0);
    expect(await stack.redis.sismember(keys.starts, id)).toBe(0);
    const scheduled = await stack.submit("slow", { x: [[4]] }, { delay_ms: 60_000 });
    await watchPrediction(stack.redis, keys, scheduled.id, "an API", {
      start: true,
      result: keys.result(scheduled.id),
    });
    expect(await stack.redis.lrange(keys.interest(scheduled.id), 0, -1)).toEqual(["wan API"]);
    await stack.post(`/v1/predictions/${scheduled.id}/cancel`, undefined);
    expect(await stack.redis.exists(keys.interest(scheduled.id))).toBe(0);
  });
});
