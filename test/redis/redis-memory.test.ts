import { request as httpRequest } from "node:http";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { scrape } from "../support/http/scrape.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { type Answer, keys, TestStack } from "../support/stack/stack.js";

const model = "echo-int64";
const path = `/v1/models/${model}`;

describe("Redis above four fifths of its memory limit", () => {
  let redis: OwnRedis;
  let stack: TestStack;

  beforeAll(async () => {
    redis = await OwnRedis.start();
    stack = await TestStack.start({ models: [model, "slow"], redisUrl: redis.url });
  });
  afterAll(async () => {
    await stack?.close();
    await redis?.close();
  });

  const admin = () => stack.redis as Redis;

  /** Sets maxmemory so that `part` of it is used. */
  async function setLimit(part: number): Promise<void> {
    const used = Number(/^used_memory:(\d+)/m.exec(await admin().info("memory"))?.[1]);
    await admin().config("SET", "maxmemory", Math.round(used / part));
  }

  const complaints = async (): Promise<string[]> => (await stack.get("/ready", { as: null })).body.turning_away;

  /** Begins an upload with `first`; the returned function sends `rest` and resolves to the answer. */
  function beginUpload(first: string): (rest: string) => Promise<{ status: number; body: { code: string } }> {
    const sending = httpRequest(`${stack.url}${path}/batches`, {
      method: "POST",
      headers: { authorization: `Bearer ${keys.alice}`, "content-type": "application/x-ndjson" },
    });
    const answered = new Promise<{ status: number; body: { code: string } }>((resolve, reject) => {
      sending.once("error", reject);
      sending.once("response", (response) => {
        let text = "";
        response.on("data", (part: Buffer) => {
          text += part;
        });
        response.once("end", () => resolve({ status: response.statusCode as number, body: JSON.parse(text) }));
      });
    });
    sending.write(first);
    return (rest) => {
      sending.end(rest);
      return answered;
    };
  }

  test("refuses new work of any kind, even in the middle of an upload, and continues everything else", async () => {
    const input = (value: number) => ({ input: { x: [[value, 0, 0]] } });
    const key = { headers: { "idempotency-key": "before" } };
    const before = await stack.post(`${path}/predictions`, input(1), key);
    const done = await stack.predict(model, input(2).input, { cache: true });
    const waiting = await Promise.all(Array.from({ length: 20 }, (_, i) => stack.submit("slow", { x: [[50 + i]] })));
    const later = await stack.submit("slow", { x: [[1]] }, { delay_ms: 3_600_000 });
    const upload = beginUpload('{"x":[[1,2,3]]}\n'.repeat(3000));

    const staged = () => admin().keys(`${stack.prefix}:*batch-chunks*`);
    await eventually(async () => expect(await staged()).toHaveLength(1));

    await admin().set("filler", Buffer.alloc(40 * 1024 * 1024));
    // Used memory includes Redis' temporary needs and changes, so the limit is set again.
    await eventually(async () => {
      await setLimit(0.87);
      expect(await complaints()).toEqual([expect.stringMatching(/^Redis has used 8\d % of/)]);
    });
    expect((await stack.get("/ready", { as: null })).status).toBe(200);

    const tensor = { inputs: [{ name: "x", datatype: "INT64", shape: [5000, 3], data: Array(15_000).fill(1) }] };
    const refused: Answer[] = await Promise.all([
      stack.post(`${path}/predictions`, input(3)),
      stack.post(`${path}/predictions`, input(2)),
      stack.post("/v1/models/slow/predictions", { input: { x: [[1]] }, priority: 1 }, { as: "bob" }),
      stack.post(`${path}/batches`, { inputs: [{ x: [[1, 2, 3]] }] }),
      stack.post(`/v2/models/${model}/infer`, tensor),
    ]);
    for (const answer of refused) {
      assertProblem(answer, 429, "memory_pressure");
      expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
      expect(Number(answer.headers.get("retry-after"))).toBeLessThan(61);
    }
    const cut = await upload('{"x":[[1,2,3]]}\n'.repeat(3000));
    expect([cut.status, cut.body.code]).toEqual([429, "memory_pressure"]);
    await eventually(async () => expect(await staged()).toEqual([]));
    expect(await scrape(stack.url, "ml_requests_shed_total", { reason: "memory_pressure" })).toBe(6);

    const replayed = await stack.post(`${path}/predictions`, input(1), key);
    expect([replayed.status, replayed.body.id]).toEqual([202, before.body.id]);
    expect((await stack.get(`/v1/predictions/${done.body.id}`)).body.status).toBe("succeeded");
    expect((await stack.get("/v1/predictions?limit=5")).body.data).toHaveLength(5);
    expect((await stack.post(`/v1/predictions/${later.id}/cancel`, {})).body.status).toBe("canceled");
    const finals = await Promise.all(waiting.map(({ id }) => stack.final(id)));
    expect(finals.map(({ status }) => status)).toEqual(finals.map(() => "succeeded"));

    await eventually(async () => {
      await setLimit(1.01);
      assertProblem(await stack.post(`${path}/predictions`, input(4)), 503, "redis_full");
    });
    await admin().del("filler");
    await eventually(async () => expect((await stack.predict(model, input(5).input)).status).toBe(200));
    expect(await complaints()).toEqual([]);
  });

  test("refuses nothing without a limit", async () => {
    await admin().config("SET", "maxmemory", "0");
    await eventually(async () => expect(await scrape(stack.url, "ml_redis_memory_bytes", { kind: "max" })).toBe(0));
    expect((await stack.predict(model, { x: [[6, 6, 6]] })).status).toBe(200);
    expect(await complaints()).toEqual([]);
  });
});
