import { modelKeys } from "@millrace/shared/redis/keys.js";
import { takeJobs } from "@millrace/shared/scripts/queue/take-jobs.js";
import { afterEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { busyWorker, childrenOf, runNotes, stillRunning, untilRunning } from "../support/stack/processes.js";
import { shortLocks, TestStack } from "../support/stack/stack.js";

const ms = (time: string): number => Date.parse(time);

describe("killed processes", () => {
  let stack: TestStack;

  afterEach(() => stack.close());

  test("a prediction that ran on a worker at its SIGKILL is started by another and succeeds", async () => {
    stack = await TestStack.start({
      timing: shortLocks,
      models: ["slow"],
      manifests: { slow: { kind: "tensor", batching: { max_batch_rows: 1 } } },
      workers: 2,
      slots: 2,
    });
    const inputs = [[[2500]], [[2501]]];
    const accepted = await Promise.all(inputs.map((x) => stack.submit("slow", { x })));
    const ids = accepted.map(({ id }) => id as string);
    await untilRunning(stack, "slow", ids);
    const victim = await busyWorker(stack.workers);
    const before = await runNotes(stack, "slow");
    const killedAt = Date.now();
    victim.child.kill("SIGKILL");
    const finals = await Promise.all(ids.map((id) => stack.final(id)));
    expect(finals.map((final) => [final.status, final.output])).toEqual(inputs.map((y) => ["succeeded", { y }]));
    const restarted = finals.filter((final) => ms(final.started_at) !== before.get(final.id)?.startedAt);
    expect(restarted.length).toBeGreaterThan(0);
    for (const { started_at } of restarted) expect(ms(started_at)).toBeGreaterThan(killedAt);
    expect(stack.workers.filter(({ child }) => child.signalCode === null)).toHaveLength(1);
  });

  test("a backlog left by the SIGKILL of the only worker is finished by a new one, each with its result", async () => {
    stack = await TestStack.start({
      timing: shortLocks,
      models: ["slow"],
      manifests: { slow: { kind: "tensor", batching: { max_batch_rows: 8 } } },
    });
    const inputs = Array.from({ length: 60 }, (_, i) => [[100 + i]]);
    const accepted = await Promise.all(inputs.map((x) => stack.submit("slow", { x })));
    const worker = await busyWorker(stack.workers);
    worker.child.kill("SIGKILL");
    expect(await worker.exited).toBe("SIGKILL");
    const atDeath = await Promise.all(accepted.map(({ id }) => stack.get(`/v1/predictions/${id}`)));
    expect(atDeath.filter(({ body }) => body.status !== "succeeded").length).toBeGreaterThan(30);
    await stack.startWorker();
    const finals = await Promise.all(accepted.map(({ id }) => stack.final(id)));
    expect(finals.map((final) => [final.status, final.output])).toEqual(inputs.map((y) => ["succeeded", { y }]));
  });

  test("slots end with their worker, whether idle or in a run that never returns", async () => {
    stack = await TestStack.start({
      timing: shortLocks,
      models: ["endless-on-one"],
      manifests: { "endless-on-one": { kind: "tensor", timeout_ms: 60_000 } },
      workers: 1,
      slots: 2,
    });
    const { id } = await stack.submit("endless-on-one", { x: [[1]] });
    await untilRunning(stack, "endless-on-one", [id]);
    const worker = await busyWorker(stack.workers);
    const slots = await childrenOf(worker.pid);
    expect(slots).toHaveLength(2);
    expect(await stillRunning(slots)).toEqual(slots);
    worker.child.kill("SIGKILL");
    await worker.exited;
    await eventually(async () => expect(await stillRunning(slots)).toEqual([]), 5000);
  });

  test("predictions joined in a run whose slot is killed succeed, each alone, without paying an attempt", async () => {
    stack = await TestStack.start({
      timing: shortLocks,
      models: ["slow"],
      // An idle slot waits for exactly that many, however far apart they reach the worker.
      manifests: {
        slow: { kind: "tensor", attempts: 1, batching: { max_batch_rows: 5, max_delay_ms: 5000, join: "always" } },
      },
    });
    const [worker] = stack.workers as [TestStack["workers"][number]];
    const inputs = Array.from({ length: 5 }, (_, i) => [[800 + i]]);
    const accepted = await Promise.all(inputs.map((x) => stack.submit("slow", { x })));
    const ids = accepted.map(({ id }) => id as string);
    await untilRunning(stack, "slow", ids);
    expect([...(await runNotes(stack, "slow")).values()].map((note) => note.alone)).toEqual(ids.map(() => false));
    const [slot] = await childrenOf(worker.pid);
    process.kill(slot as number, "SIGKILL");
    const finals = await Promise.all(ids.map((id) => stack.final(id)));
    expect(finals.map(({ output, status }) => [status, output])).toEqual(inputs.map((y) => ["succeeded", { y }]));
    expect(finals.map(({ attempts, timings }) => [attempts, timings.batch_rows])).toEqual(ids.map(() => [1, 1]));
    expect(worker.child.exitCode).toBeNull();
    expect(await childrenOf(worker.pid)).not.toContain(slot);
  });

  test("a prediction pays no attempt for a refusal by Redis, and runs once Redis accepts again", async () => {
    stack = await TestStack.start({
      timing: shortLocks,
      models: ["slow"],
      manifests: { slow: { kind: "tensor", attempts: 1 } },
    });
    const [worker] = stack.workers;
    expect(await worker?.stop()).toBe(0);
    const { id } = await stack.submit("slow", { x: [[7]] });
    const keys = modelKeys(stack.prefix, "slow");
    // Taken by a worker that died at once, so that the job's history is read, which Redis refuses while the key has
    // another type.
    await takeJobs(stack.redis, keys.queue, { token: "dead", count: 1, lockMs: 1, nowMs: Date.now() });
    await stack.redis.set(keys.deaths, "not a hash");
    await stack.startWorker();
    await eventually(() => expect(stack.logged("queue error").length).toBeGreaterThan(2), 40_000);
    await stack.redis.del(keys.deaths);
    const final = await stack.final(id);
    expect([final.status, final.output, final.attempts]).toEqual(["succeeded", { y: [[7]] }, 1]);
  });
});
