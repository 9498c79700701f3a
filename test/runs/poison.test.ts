import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { startWithModels } from "../support/models/made-models.js";
import { type ModelFile, node } from "../support/models/onnx-file.js";
import { childrenOf, readiness } from "../support/stack/processes.js";
import type { TestStack } from "../support/stack/stack.js";

/** The value that makes the model below run for ever; no input made by a worker itself contains it. */
const endlessValue = 4321;
const endless: ModelFile = {
  nodes: [
    node("Equal", ["x", "deadly"], ["is"]),
    node("Cast", ["is"], ["ones"], { to: 7 }),
    node("ReduceSum", ["ones"], ["count"], { keepdims: 0 }),
    node("Cast", ["count"], ["any"], { to: 9 }),
    node("Loop", ["forever", "any", "x"], ["y"], {
      body: {
        graph: {
          nodes: [node("Identity", ["go"], ["on"]), node("Identity", ["rows"], ["same"])],
          inputs: { trip: ["int64", []], go: ["bool", []], rows: ["int64", ["n", 1]] },
          outputs: { on: ["bool", []], same: ["int64", ["n", 1]] },
        },
      },
    }),
  ],
  constants: {
    deadly: { dtype: "int64", dims: [], data: [endlessValue] },
    forever: { dtype: "int64", dims: [], data: [2n ** 62n] },
  },
  inputs: { x: ["int64", ["n", 1]] },
  outputs: { y: ["int64", ["n", 1]] },
};

/**
 * For inputs that share a run, however far apart they reach the worker: an idle slot waits for exactly that many rows.
 */
const manifestFor = (rows: number) => ({
  kind: "tensor",
  timeout_ms: 1000,
  attempts: 2,
  backoff_ms: 50,
  batching: { max_batch_rows: rows, max_delay_ms: 5000 },
});

describe("a poisonous input among valid ones", () => {
  let stack: TestStack;

  beforeAll(async () => {
    const five = manifestFor(5);
    const declared = { ...five, batching: { ...five.batching, join: "always" } };
    stack = await startWithModels(
      { endless: { graph: endless, manifest: declared } },
      {
        models: ["crashes-on-zero", "throws-on-row"],
        manifests: {
          "crashes-on-zero": five,
          // A second attempt would wait for longer than the test.
          "throws-on-row": { ...manifestFor(8), backoff_ms: 3_600_000 },
        },
      },
    );
  });
  afterAll(() => stack.close());

  const worker = () => stack.workers[0] as TestStack["workers"][number];

  /** The worker's count of runs of a model with more than one row. */
  async function joinedRuns(model: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${worker().port}/metrics`)).text();
    const read = (line: string) =>
      Number(
        text
          .split("\n")
          .find((entry) => entry.startsWith(line))
          ?.split(" ")[1] ?? 0,
      );
    return read(`ml_batch_rows_count{model="${model}"}`) - read(`ml_batch_rows_bucket{le="1",model="${model}"}`);
  }

  /** Submits inputs, as many as a run takes, and waits for their ends. */
  async function inOneRun(model: string, values: readonly number[]) {
    const accepted = await Promise.all(values.map((value) => stack.submit(model, { x: [[value]] })));
    const finals = await Promise.all(accepted.map(({ id }) => stack.final(id)));
    return { finals, byValue: new Map(values.map((value, i) => [value, finals[i]])) };
  }

  const assertNoPath = (detail: string) => expect(detail).not.toMatch(/\/\w|\\|\.onnx|\.js|node_modules/);

  test("an input whose run never returns uses up only its own attempts, and fails as timeout", async () => {
    const { byValue, finals } = await inOneRun("endless", [5, 6, endlessValue, 7, 8]);
    expect(await joinedRuns("endless")).toBe(1);
    const poisonous = byValue.get(endlessValue);
    expect(poisonous).toMatchObject({ status: "failed", output: null, attempts: 2, error: { code: "timeout" } });
    assertNoPath(poisonous.error.detail);
    const others = finals.filter((final) => final !== poisonous);
    expect(others.map(({ output, status }) => [status, output.y])).toEqual(
      [5, 6, 7, 8].map((value) => ["succeeded", [[value]]]),
    );
    expect(others.map(({ attempts, timings }) => [attempts, timings.batch_rows])).toEqual(others.map(() => [1, 1]));
  });

  // Only x86 traps on this model's division.
  test.skipIf(process.arch !== "x64")(
    "an input that crashes its process uses up only its own attempts, and fails as poisoned",
    async () => {
      // Workers try a model with made inputs, among them a zero, which has crashed a process; the version is still
      // served.
      const { joining } = (await stack.get("/v1/models/crashes-on-zero")).body;
      expect(joining).toEqual({ mode: "proven", reason: expect.stringMatching(/not tried, because a made input/) });
      const { byValue, finals } = await inOneRun("crashes-on-zero", [1, 2, 0, 4, 5]);
      expect(await joinedRuns("crashes-on-zero")).toBe(1);
      const poisonous = byValue.get(0);
      expect(poisonous).toMatchObject({ status: "failed", output: null, attempts: 2, error: { code: "poisoned" } });
      assertNoPath(poisonous.error.detail);
      const others = finals.filter((final) => final !== poisonous);
      expect(others.map(({ output, status }) => [status, output.y])).toEqual(
        [1000, 500, 250, 200].map((value) => ["succeeded", [[value]]]),
      );
      expect(others.map(({ attempts }) => attempts)).toEqual([1, 1, 1, 1]);
    },
  );

  test("a row that makes the run throw is found by halving, and fails alone and at once", async () => {
    const values = [0, 1, 2, 3, 77, 5, 6, 7];
    const { byValue, finals } = await inOneRun("throws-on-row", values);
    expect(await joinedRuns("throws-on-row")).toBe(1);
    const poisonous = byValue.get(77);
    expect(poisonous).toMatchObject({
      status: "failed",
      output: null,
      attempts: 1,
      error: { code: "inference_failed" },
    });
    assertNoPath(poisonous.error.detail);
    const others = finals.filter((final) => final !== poisonous);
    expect(others.map(({ output }) => output.y[0][0])).toEqual([0, 1.5, 3, 4.5, 7.5, 9, 10.5]);
    expect(others.map(({ attempts }) => attempts)).toEqual(others.map(() => 1));
    expect(others.map(({ timings }) => timings.batch_rows).sort()).toEqual([1, 2, 2, 4, 4, 4, 4]);
  });

  test("leaves the worker running with all its slots, and still serving", async () => {
    expect(worker().child.exitCode).toBeNull();
    expect(stack.logged("worker ready")).toHaveLength(1);
    await eventually(async () => {
      const state = await readiness(worker());
      expect(state).toMatchObject({ ready: true, slots: { alive: 1, configured: 1 } });
    });
    expect(await childrenOf(worker().pid)).toHaveLength(1);
    // Each waits for company in vain, so they wait together.
    const alone = { endless: 9, "crashes-on-zero": 8, "throws-on-row": 4 };
    const answers = await Promise.all(Object.entries(alone).map(([model, x]) => stack.predict(model, { x: [[x]] })));
    expect(answers.map(({ body, status }) => [status, body.status])).toEqual(answers.map(() => [200, "succeeded"]));
  });
});
