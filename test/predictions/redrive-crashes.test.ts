import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { failuresOf, failing as model } from "../support/failures.js";
import { TestStack } from "../support/stack/stack.js";

describe("a redrive whose worker is killed", () => {
  let stack: TestStack;
  const { ended, fail, failures, redrive, retriesOf } = failuresOf(() => stack);

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model], env: { MAX_QUEUE_DEPTH: "50" } });
  });
  afterAll(() => stack.close());

  test("continues on another worker, waits while the queue is full, and redrives each failure once", async () => {
    const ids: string[] = [];
    while (ids.length < 300) ids.push(...(await fail(30)));
    await eventually(async () => expect((await failures())[0].count).toBe(300));
    const { id } = await redrive({ model, rate: 100 });
    const [worker] = stack.workers as [TestStack["workers"][number]];
    const state = async () => (await stack.get(`/v1/failures/redrives/${id}`)).body;
    await eventually(async () => expect((await state()).counts.redriven).toBeGreaterThan(40));
    worker.child.kill("SIGKILL");
    await worker.exited;
    const atDeath = (await state()).counts.redriven;
    expect(atDeath).toBeLessThan(300);
    // A worker without models redrives too, and fills the queue, since none takes jobs from it.
    await stack.startWorker({ WORKER_ROLES: "webhooks" });
    const { queue } = modelKeys(stack.prefix, model);
    const depth = async () =>
      Number(await stack.redis.llen(`${queue}wait`)) + (await stack.redis.zcard(`${queue}prioritized`));
    await eventually(async () => expect(await depth()).toBeGreaterThanOrEqual(45));
    await eventually(async () => expect((await state()).counts.redriven).toBeGreaterThan(atDeath));
    expect(await depth()).toBeLessThanOrEqual(50);
    expect(await state()).toMatchObject({ status: "running" });
    await stack.startWorker();
    expect(await ended(id)).toMatchObject({
      status: "succeeded",
      counts: { total: 300, redriven: 300, skipped: 0, canceled: 0, pending: 0 },
    });
    const retries = await retriesOf(ids);
    expect([retries.length, new Set(retries.map(({ retry_of: of }) => of)).size]).toEqual([300, 300]);
  }, 120_000);
});
