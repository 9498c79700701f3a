import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { runNotes, untilHeld, untilRunning } from "../support/stack/processes.js";
import { keys, TestStack } from "../support/stack/stack.js";

/** Longer than a test, so that a service that ends did not wait for its grace period. */
const longGrace = { SHUTDOWN_GRACE_SECONDS: "600" };

const ms = (time: string): number => Date.parse(time);

describe("stopping", () => {
  let stack: TestStack;

  afterEach(() => stack.close());

  test("a worker at SIGTERM, sent twice, finishes its runs and returns jobs not begun", async () => {
    stack = await TestStack.start({
      models: ["slow"],
      manifests: { slow: { kind: "tensor", timeout_ms: 600_000, batching: { max_batch_rows: 1 } } },
      env: longGrace,
    });
    const [worker] = stack.workers as [TestStack["workers"][number]];
    const running = await stack.submit("slow", { x: [[300_000]] });
    await untilRunning(stack, "slow", [running.id]);
    const held = await Promise.all([10, 11, 12].map((x) => stack.submit("slow", { x: [[x]] })));
    const urgent = await stack.submit("slow", { x: [[13]] }, { priority: 3 });
    await untilHeld(stack, "slow", 5);
    worker.child.kill("SIGTERM");
    worker.child.kill("SIGTERM");
    await untilHeld(stack, "slow", 1);

    await stack.startWorker();
    const others = await Promise.all([...held, urgent].map(({ id }) => stack.final(id)));
    await writeFile(join(stack.modelsDir, "slow", "release"), "");
    expect(await worker.exited).toBe(0);
    const final = await stack.final(running.id);
    expect(final).toMatchObject({ status: "succeeded", output: { y: [[300_000]] }, attempts: 1 });
    expect(others.map(({ attempts, output, status }) => [status, output.y, attempts])).toEqual(
      [10, 11, 12, 13].map((x) => ["succeeded", [[x]], 1]),
    );
    // Finished while the first worker still ran its job, without waiting for it or for its locks to expire.
    for (const other of others) expect(ms(other.finished_at)).toBeLessThan(ms(final.finished_at));
  });

  test("a worker whose run outlasts the grace period ends with 0 and returns the prediction unharmed", async () => {
    stack = await TestStack.start({
      models: ["endless-on-one"],
      manifests: { "endless-on-one": { kind: "tensor", timeout_ms: 600_000 } },
      workerEnv: { SHUTDOWN_GRACE_SECONDS: "1" },
    });
    const [worker] = stack.workers as [TestStack["workers"][number]];
    const { id } = await stack.submit("endless-on-one", { x: [[1]] });
    await untilRunning(stack, "endless-on-one", [id]);
    const begun = performance.now();
    // Ten seconds after the grace period it would end itself with 1.
    expect(await worker.stop()).toBe(0);
    expect(performance.now() - begun).toBeGreaterThan(900);
    const { queue } = modelKeys(stack.prefix, "endless-on-one");
    expect(await stack.redis.lrange(`${queue}wait`, 0, -1)).toEqual([id]);
    expect(await stack.redis.llen(`${queue}active`)).toBe(0);
    expect(await runNotes(stack, "endless-on-one")).toEqual(new Map());
    expect((await stack.get(`/v1/predictions/${id}`)).body).toMatchObject({ status: "queued", attempts: 0 });
  });

  test("an API at SIGTERM, sent twice, answers waits with the current state, and exits 0 at once", async () => {
    stack = await TestStack.start({ models: ["slow"], env: longGrace });
    const [api] = stack.apis as [TestStack["apis"][number]];
    const waiting = stack.predict("slow", { x: [[3000]] });
    const polled = await stack.submit("slow", { x: [[3001]] });
    const poll = stack.get(`/v1/predictions/${polled.id}?wait=30`);
    await untilHeld(stack, "slow", 2);

    api.child.kill("SIGTERM");
    api.child.kill("SIGTERM");
    const [first, second] = await Promise.all([waiting, poll]);
    expect(first.status).toBe(202);
    expect(["queued", "running"]).toContain(first.body.status);
    expect(first.headers.get("location")).toBe(`/v1/predictions/${first.body.id}`);
    expect([second.status, second.body.id]).toEqual([200, polled.id]);
    // No request is in progress, so it does not wait for the grace period, although clients keep their connections
    // open.
    expect(await api.exited).toBe(0);

    // Predictions that it accepted are readable at another API.
    const { url } = await stack.startApi();
    for (const { id } of [first.body, polled]) {
      expect(await stack.final(id, { url })).toMatchObject({ id, status: "succeeded" });
    }
  });

  test("an API at SIGTERM accepts no new connection, but answers a request that is half received", async () => {
    stack = await TestStack.start({ models: ["slow"], env: longGrace });
    const [api] = stack.apis as [TestStack["apis"][number]];
    const port = Number(new URL(api.url).port);
    const body = JSON.stringify({ input: { x: [[5]] } });
    const half = connect(port, "127.0.0.1");
    let answered = "";
    half.on("data", (chunk) => {
      answered += chunk;
    });
    half.write(
      `POST /v1/models/slow/predictions HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer ${keys.alice}\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${body.length}\r\nExpect: 100-continue\r\n\r\n`,
    );
    await eventually(() => expect(answered).toContain("100 Continue"));
    half.write(body.slice(0, 5));

    api.child.kill("SIGTERM");
    await eventually(() => expect(stack.logged("stopping")).toHaveLength(1));
    // The log line comes slightly before the listener closes.
    await eventually(async () => {
      const socket = connect(port, "127.0.0.1");
      const fault = new Promise<NodeJS.ErrnoException>((resolve) => socket.once("error", resolve));
      await once(socket, "close").catch(() => undefined);
      expect((await Promise.race([fault, null]))?.code).toBe("ECONNREFUSED");
    });
    expect(api.child.exitCode).toBeNull();
    half.write(body.slice(5));
    await eventually(() => expect(answered).toContain("HTTP/1.1 202 Accepted"));
    expect(await api.exited).toBe(0);

    const { url } = await stack.startApi();
    const { id } = JSON.parse(answered.slice(answered.indexOf("{")));
    expect(await stack.final(id, { url })).toMatchObject({ id, status: "succeeded" });
  });
});
