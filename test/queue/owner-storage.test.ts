import { randomBytes } from "node:crypto";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openUpload } from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { type Owner, TestStack } from "../support/stack/stack.js";

const [model, other] = ["echo-string", "echo-float32"];
/** With four fifths of the memory for new work and a tenth of that for an owner: 8 MB. */
const maxmemory = 100_000_000;

describe("an owner who has filled the own part of the store", () => {
  let redis: OwnRedis;
  let stack: TestStack;
  beforeAll(async () => {
    redis = await OwnRedis.start(["--maxmemory", String(maxmemory)]);
    stack = await TestStack.start({
      models: [model, other],
      redisUrl: redis.url,
      env: { MAX_OWNER_PART: "0.1", RESULT_TTL_SECONDS: "10" },
    });
  });
  afterAll(async () => {
    await stack?.close();
    await redis?.close();
  });

  const large = () => ({ x: [[randomBytes(300_000).toString("hex"), "", ""]] });
  const submit = (owner: Owner, name: string, input: unknown) =>
    stack.post(
      `/v1/models/${name}/predictions`,
      { input, cache: false },
      { as: owner, headers: { prefer: "wait=30" } },
    );
  const small = { x: [[1, 2, 3]] };

  test("gets 429 for any model, other owners do not, and is accepted again when results have expired", async () => {
    await eventually(async () => {
      const answer = await submit("alice", model, large());
      if (answer.status === 200) throw new Error("still accepted");
      assertProblem(answer, 429, "memory_pressure");
      expect(answer.body.detail).toContain("MAX_OWNER_PART");
      expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
    }, 60_000);
    const used = Number(/^used_memory:(\d+)/m.exec(await (stack.redis as Redis).info("memory"))?.[1]);
    expect(used).toBeLessThan(0.4 * maxmemory);
    expect((await submit("alice", other, small)).status).toBe(429);
    const upload = openUpload(stack, other, { as: "alice" });
    upload.end('{"x":[[1,2,3]]}\n');
    expect((await upload.answer).status).toBe(429);
    expect((await submit("bob", model, large())).status).toBe(200);
    expect((await submit("bob", other, small)).status).toBe(200);
    await eventually(async () => expect((await submit("alice", other, small)).status).toBe(200), 90_000);
  });

  test("cannot exceed it in one upload, of which nothing is left", async () => {
    const upload = openUpload(stack, model, { as: "bob" });
    for (let row = 0; row < 60; row++) await upload.write(`${JSON.stringify(large())}\n`);
    upload.end();
    const answer = await upload.answer;
    assertProblem(answer, 429, "memory_pressure");
    await eventually(async () => expect(await stack.redis.keys(`${stack.prefix}:*/batch*`)).toEqual([]));
  });

  test("counts rows of batches that wait, and no longer when they are done or canceled", async () => {
    await Promise.all(stack.workers.splice(0).map((worker) => worker.stop()));
    const rows = `${JSON.stringify({ x: [["a", "b", "c"]] })}\n`.repeat(100);
    const ids: string[] = [];
    for (let batch = 0; batch < 2; batch++) {
      const upload = openUpload(stack, model, { as: "admin" });
      upload.end(rows);
      ids.push((await upload.answer).body.id);
    }
    const held = async () => {
      const [key] = (await stack.redis.keys(`${stack.prefix}:*/bulk-bytes-of`)) as string[];
      return key === undefined ? 0 : Number((await stack.redis.hget(key, "admin")) ?? 0);
    };
    const both = await held();
    expect(both).toBeGreaterThan(2000);
    await stack.post(`/v1/batches/${ids[0]}/cancel`, {}, { as: "admin" });
    expect(await held()).toBe(both / 2);
    await stack.startWorker();
    await eventually(async () => expect(await held()).toBe(0));
  });
});
