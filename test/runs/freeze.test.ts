import { setTimeout as delay } from "node:timers/promises";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { readiness, untilHeld, untilRunning } from "../support/stack/processes.js";
import { shortLocks, TestStack } from "../support/stack/stack.js";

const frozenMs = 10_000;

describe("a worker that is frozen for longer than its locks", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({
      timing: shortLocks,
      models: ["slow"],
      manifests: { slow: { kind: "tensor", batching: { max_batch_rows: 1 } } },
    });
  });
  afterAll(() => stack.close());

  test("loses its jobs, running or held, to another worker, and overwrites nothing when it wakes", async () => {
    const [frozen] = stack.workers as [TestStack["workers"][number]];
    const keys = modelKeys(stack.prefix, "slow");
    const running = await stack.submit("slow", { x: [[2500]] });
    await untilRunning(stack, "slow", [running.id]);
    const held = await Promise.all([20, 21, 22].map((x) => stack.submit("slow", { x: [[x]] })));
    await untilHeld(stack, "slow", 4);
    const ids = [running, ...held].map(({ id }) => id as string);

    // The slot is not frozen: it finishes its run, and the worker reads that result first when it wakes.
    frozen.child.kill("SIGSTOP");
    const thaw = delay(frozenMs).then(() => frozen.child.kill("SIGCONT"));
    const other = await stack.startWorker();
    const finals = await Promise.all(ids.map((id) => stack.final(id)));
    expect(finals.map(({ output, status }) => [status, output])).toEqual(
      [2500, 20, 21, 22].map((x) => ["succeeded", { y: [[x]] }]),
    );
    const stored = await stack.redis.mget(ids.map((id) => keys.result(id)));
    const timesToLive = await Promise.all(ids.map((id) => stack.redis.pttl(keys.result(id))));

    await thaw;
    await eventually(async () => {
      const { ready, slots } = await readiness(frozen);
      expect({ ready, busy: slots.busy }).toEqual({ ready: true, busy: 0 });
    });
    // Without the other worker only the thawed one can serve this, after all jobs that it held.
    expect(await other.stop()).toBe(0);
    expect((await stack.predict("slow", { x: [[30]] })).body).toMatchObject({ status: "succeeded", attempts: 1 });

    expect(await stack.redis.mget(ids.map((id) => keys.result(id)))).toEqual(stored);
    for (const [i, id] of ids.entries()) {
      expect(await stack.redis.pttl(keys.result(id))).toBeLessThanOrEqual(timesToLive[i] as number);
    }
    const after = await Promise.all(ids.map((id) => stack.get(`/v1/predictions/${id}`)));
    expect(after.map(({ body }) => body)).toEqual(finals);
  });

  test("leaves no job active or in the queue", async () => {
    const { queue } = modelKeys(stack.prefix, "slow");
    // Longer than a lock, after which a stuck job would be found and moved.
    await delay(shortLocks.worker.lockMs + shortLocks.worker.stalledCheckMs + 1000);
    expect(await stack.redis.llen(`${queue}active`)).toBe(0);
    expect(await stack.redis.llen(`${queue}wait`)).toBe(0);
    expect(await stack.redis.zcard(`${queue}delayed`)).toBe(0);
    expect(await stack.redis.zcard(`${queue}failed`)).toBe(0);
  });

  test("leaves no run notes of the jobs that it lost", async () => {
    expect(await stack.redis.hgetall(modelKeys(stack.prefix, "slow").running)).toEqual({});
  });
});
