import { readFile } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { runBatch } from "../support/run-batch.js";
import { childrenOf } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";

/** Above a slot's memory after loading, below its memory after the leaking run. */
const limitMb = 320;

describe("a slot that leaks", () => {
  let stack: TestStack;

  afterEach(() => stack.close());

  test("is replaced once it is idle, and waiting runs use its successor without paying an attempt", async () => {
    stack = await TestStack.start({
      models: ["wants-memory", "slow"],
      manifests: { slow: { kind: "tensor", batching: { max_batch_rows: 1 } } },
      workerEnv: { SLOT_MAX_RSS_MB: String(limitMb) },
    });
    const [worker] = stack.workers as [TestStack["workers"][number]];
    const [leaking] = await childrenOf(worker.pid);
    await stack.predict("slow", { x: [[1]] });
    expect(await childrenOf(worker.pid), "an ordinary slot stays").toEqual([leaking]);
    const first = await stack.submit("wants-memory", { x: [[400]] });
    const behind = await Promise.all(Array.from({ length: 20 }, (_, i) => stack.submit("slow", { x: [[150 + i]] })));
    expect(await stack.final(first.id)).toMatchObject({ status: "succeeded", attempts: 1 });
    const finals = await Promise.all(behind.map(({ id }) => stack.final(id)));
    expect(finals.map(({ attempts, status }) => [attempts, status])).toEqual(behind.map(() => [1, "succeeded"]));
    await eventually(async () => {
      const slots = await childrenOf(worker.pid);
      expect([slots.length, slots.includes(leaking as number)]).toEqual([1, false]);
    });
    expect(stack.logged("slot holds too much memory and is replaced")).toHaveLength(1);
    expect(stack.logged("slot ended and is replaced"), "replaced on purpose, not lost").toEqual([]);
    expect((await stack.predict("slow", { x: [[2]] })).body.status).toBe("succeeded");
  });
});

describe("an input whose run takes more memory than a slot may", () => {
  let stack: TestStack;
  beforeAll(async () => {
    stack = await TestStack.start({
      models: ["wants-memory", "echo-int64"],
      manifests: { "wants-memory": { kind: "tensor", attempts: 2 } },
      workerEnv: { SLOT_MEMORY_LIMIT_MB: "700" },
    });
  });
  afterAll(() => stack.close());

  /** Takes that many MiB at once. */
  const takes = (mebibytes: number) => ({ x: [[mebibytes]] });

  test("ends as out_of_memory after its attempts, and what runs beside it is not touched", async () => {
    const others = Array.from({ length: 40 }, (_, i) => stack.submit("echo-int64", { x: [[i, 0, 0]] }));
    const hungry = await stack.submit("wants-memory", takes(100_000));
    const more = Array.from({ length: 40 }, (_, i) => stack.submit("echo-int64", { x: [[i, 1, 0]] }));
    expect(await stack.final(hungry.id)).toMatchObject({
      ...{ status: "failed", attempts: 2 },
      error: { code: "out_of_memory", detail: expect.stringContaining("memory") },
    });
    for (const { id } of await Promise.all([...others, ...more])) {
      expect(await stack.final(id)).toMatchObject({ status: "succeeded", attempts: 1 });
    }
    expect((await stack.predict("wants-memory", takes(300))).body.status).toBe("succeeded");
  });

  test("fails alone in a batch", async () => {
    const lines = await runBatch(stack, "wants-memory", [takes(1), takes(2), takes(100_000), takes(3)]);
    expect(lines.map(({ error, status }) => error?.code ?? status)).toEqual([
      ...["succeeded", "succeeded", "out_of_memory", "succeeded"],
    ]);
  });

  test("cannot take it in many small steps either: the kernel holds the limit of each slot", async () => {
    for (const pid of await childrenOf((stack.workers[0] as TestStack["workers"][number]).pid)) {
      const limits = await readFile(`/proc/${pid}/limits`, "utf8");
      expect(limits).toMatch(/^Max data size +734003200 /m);
    }
  });
});
