import { afterEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
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
