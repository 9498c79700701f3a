import { cp, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { Queue } from "bullmq";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { scrape } from "../support/http/scrape.js";
import { childrenOf, readiness } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";
import { startSteadyTraffic } from "../support/stack/steady-traffic.js";

const model = "dynamic-inner";
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/models/${name}/1`, import.meta.url));
const input = (i: number) => ({ x: [[i, 0, 0]] });

describe("versions that change under load", () => {
  let stack: TestStack;
  const admin = { as: "admin" } as const;
  const worker = () => stack.workers[0] as TestStack["workers"][number];
  const folder = (version: string, of = model) => join(stack.modelsDir, of, version);
  const describeModel = async (of = model) => (await stack.get(`/v1/models/${of}`)).body;
  const stateOf = async (version: string) =>
    (await readiness(worker())).models.find((held: { model: string; version: string }) => {
      return held.model === model && held.version === version;
    })?.state;

  /** Ends the delay of a prediction. */
  async function startNow(id: string): Promise<void> {
    const { queuePrefix: prefix } = modelKeys(stack.prefix, model);
    const queue = new Queue(model, { connection: stack.redis as never, prefix, skipMetasUpdate: true });
    await (await queue.getJob(id))?.promote();
    await queue.close();
  }

  /** Adds a fixture as a version, atomically, like a deployment. */
  async function put(name: string, version: string, of = model): Promise<void> {
    const aside = join(stack.modelsDir, of, "aside");
    await cp(fixture(name), aside, { recursive: true });
    await rename(aside, folder(version, of));
  }

  beforeAll(async () => {
    // Version 1 of the model adds one; echo-float32 returns its input.
    stack = await TestStack.start({
      models: [model, "slow"],
      timing: { api: { modelsRereadMs: 500 }, worker: { versionNoticedMs: 1000, versionRetryMs: 1000 } },
    });
  });
  afterAll(() => stack.close());

  test("a new version in the folder is served beside the old without a restart, and no request fails", async () => {
    const [slotBefore] = await childrenOf(worker().pid);
    const traffic = startSteadyTraffic(stack, model, input);
    await eventually(() => expect(traffic.answers.length).toBeGreaterThan(10));
    await put("echo-float32", "2");
    await eventually(async () => {
      expect((await describeModel()).versions.map(({ version }: { version: string }) => version)).toEqual(["1", "2"]);
    });
    await eventually(() => expect(traffic.answers.at(-1)?.body.version).toBe("2"));
    const answers = await traffic.stop();
    expect(answers.map(({ body, status }) => [status, body.status])).toEqual(answers.map(() => [200, "succeeded"]));
    for (const [i, { body }] of answers.entries()) {
      expect(["1", "2"], `answer ${i}`).toContain(body.version);
      // Each ran on the version, and on the files, that it reports.
      const [value] = body.output.y[0];
      expect(Number.isInteger(value)).toBe(true);
    }
    expect((await stack.predict(model, input(7), { version: "1" })).body.output).toEqual({ y: [[8, 1, 1]] });
    expect((await stack.predict(model, input(7))).body).toMatchObject({ version: "2", output: { y: [[7, 0, 0]] } });
    // The new version was loaded in a new process beside the old one, which then ended.
    await eventually(async () => {
      const slots = await childrenOf(worker().pid);
      expect([slots.length, slots.includes(slotBefore as number)]).toEqual([1, false]);
    });
    expect(await scrape(`http://127.0.0.1:${worker().port}`, "ml_slot_death_total")).toBe(0);
  });

  test("a new version that took the traffic automatically is rolled back by an admin in one call", async () => {
    assertProblem(await stack.post(`/v1/models/${model}/rollback`, {}), 403, "forbidden");
    const { body } = await stack.call("POST", `/v1/models/${model}/rollback`, admin);
    expect(body).toMatchObject({ automatic: false, shares: { "1": 1 } });
    expect((await stack.predict(model, input(9))).body).toMatchObject({ version: "1", output: { y: [[10, 1, 1]] } });
    assertProblem(await stack.call("POST", `/v1/models/${model}/rollback`, admin), 409, "state_conflict");
  });

  test("a version that fails to load is refused with the reason, and the others are still served", async () => {
    await put("broken", "3");
    const answer = await stack.post(`/v1/models/${model}/load`, { version: "3" }, admin);
    expect(assertProblem(answer, 409, "state_conflict").detail).toMatch(/cannot be loaded/);
    await eventually(async () => {
      const { refused } = await describeModel();
      expect(refused).toEqual([{ version: "3", worker: expect.any(String), reason: expect.any(String) }]);
      expect(refused[0].reason).not.toContain(stack.modelsDir);
    });
    expect((await stack.predict(model, input(1))).body.status).toBe("succeeded");
    expect(stack.logged("model cannot be served")).toHaveLength(1);
    await rm(folder("3"), { recursive: true });
    await eventually(async () => expect((await describeModel()).refused).toEqual([]));
  });

  test("a call of load takes effect at once, and is a 404 for an unknown version", async () => {
    await put("echo-float32", "4");
    const { body, status } = await stack.post(`/v1/models/${model}/load`, {}, admin);
    expect([status, body.workers_unanswered]).toEqual([200, 0]);
    expect(body.workers[0].versions.map(({ state, version }: Record<string, string>) => [version, state])).toEqual([
      ["1", "ready"],
      ["2", "ready"],
      ["4", "ready"],
    ]);
    expect((await stack.predict(model, input(3), { version: "4" })).body.output).toEqual({ y: [[3, 0, 0]] });
    assertProblem(await stack.post(`/v1/models/${model}/load`, {}), 403, "forbidden");
    assertProblem(await stack.post(`/v1/models/${model}/load`, { version: "9" }, admin), 404, "version_not_found");
    assertProblem(await stack.post("/v1/models/nobody/load", {}, admin), 404, "model_not_found");
    assertProblem(await stack.post(`/v1/models/${model}/load`, { version: "../1" }, admin), 422, "invalid_request");
  });

  test("changed files of a served version are refused, and it keeps running the loaded ones", async () => {
    const before = (await stack.predict(model, input(1), { version: "4" })).body;
    await cp(join(fixture("echo-float64"), "model.onnx"), join(folder("4"), "model.onnx"));
    await stack.post(`/v1/models/${model}/load`, {}, admin);
    const { refused } = await describeModel();
    expect(refused.map(({ version }: { version: string }) => version)).toEqual(["4"]);
    expect(refused[0].reason).toMatch(/changed while it is served.*new version/);
    const after = (await stack.predict(model, input(1), { version: "4" })).body;
    expect([after.output, after.model_digest]).toEqual([before.output, before.model_digest]);
  });

  test("a changed model.json is loaded beside the old one, and takes its place", async () => {
    const manifest = { kind: "tensor", title: "Adds one", cache_ttl_seconds: 0 };
    await writeFile(join(stack.modelsDir, "slow", "model.json"), JSON.stringify(manifest));
    await eventually(async () => expect((await describeModel("slow")).title).toBe("Adds one"));
    expect((await stack.predict("slow", { x: [[3]] })).body.status).toBe("succeeded");
    await writeFile(join(stack.modelsDir, "slow", "model.json"), "{");
    await eventually(async () => expect((await describeModel("slow")).refused).toHaveLength(1));
    expect((await describeModel("slow")).title).toBe("Adds one");
    expect((await stack.predict("slow", { x: [[4]] })).body.status).toBe("succeeded");
  });

  test("removed versions still run accepted work; work that starts too late fails as version_gone", async () => {
    await rm(folder("4"), { recursive: true });
    await put("echo-float32", "5");
    const load = (version: string) => stack.post(`/v1/models/${model}/load`, { version }, admin);
    const unload = (version: string, options: object = admin) =>
      stack.post(`/v1/models/${model}/unload`, { version }, options);
    expect((await load("5")).status).toBe(200);
    assertProblem(await unload("1"), 409, "state_conflict");
    assertProblem(await unload("7"), 404, "version_not_found");
    assertProblem(await unload("5", {}), 403, "forbidden");

    const late = await stack.submit(model, input(5), { version: "2", delay_ms: 600_000 });
    const traffic = startSteadyTraffic(stack, model, input, 1);
    const held = await stack.submit("slow", { x: [[1500]] });
    const waiting = await Promise.all([1, 2, 3].map((i) => stack.submit(model, input(i), { version: "2" })));
    await rm(folder("2"), { recursive: true });
    const { body, status } = await unload("5");
    expect([status, body.workers_unanswered]).toEqual([200, 0]);
    const states = body.workers[0].versions.map(({ state, version }: Record<string, string>) => [version, state]);
    expect(states).toEqual(expect.arrayContaining(["2", "5"].map((version) => [version, "draining"])));
    // A draining version still serves requests that name it.
    expect((await stack.predict(model, input(8), { version: "2" })).body.output).toEqual({ y: [[8, 0, 0]] });
    for (const [i, { id }] of waiting.entries()) {
      expect(await stack.final(id)).toMatchObject({
        status: "succeeded",
        version: "2",
        output: { y: [[i + 1, 0, 0]] },
      });
    }
    await stack.final(held.id);
    // Repeated requests do not keep it loaded, and no accepted request fails.
    for (const version of ["2", "5"]) {
      await eventually(async () => {
        const answer = await stack.predict(model, input(1), { version });
        if (answer.status === 200) expect(answer.body.status).toBe("succeeded");
        assertProblem(answer, 404, "version_not_found");
      }, 50_000);
      await eventually(async () => expect(await stateOf(version)).toBeUndefined(), 30_000);
    }
    const answers = await traffic.stop();
    expect(answers.map(({ body, status }) => [status, body.status])).toEqual(answers.map(() => [200, "succeeded"]));
    await startNow(late.id);
    expect(await stack.final(late.id)).toMatchObject({
      status: "failed",
      version: "2",
      error: { code: "version_gone" },
    });

    assertProblem(await stack.predict(model, input(1), { version: "5" }), 404, "version_not_found");
    expect((await load("5")).status).toBe(200);
    expect((await stack.predict(model, input(6), { version: "5" })).body.output).toEqual({ y: [[6, 0, 0]] });
  });

  test("an incomplete version is not loaded until it is complete", async () => {
    await mkdir(folder("6"));
    await writeFile(join(folder("6"), "labels.txt"), "a\n");
    await eventually(async () => {
      expect((await describeModel()).refused).toMatchObject([
        { version: "6", reason: "it has no model.onnx: put model.onnx into <model>/<version>/" },
      ]);
    });
    await cp(join(fixture("echo-float32"), "model.onnx"), join(folder("6"), "model.onnx"));
    await eventually(async () => expect(await stateOf("6")).toBe("ready"));
    await eventually(async () => expect((await describeModel()).refused).toEqual([]));
  });
});
