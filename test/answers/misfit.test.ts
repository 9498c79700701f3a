import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { scrape } from "../support/http/scrape.js";
import { startWithModels } from "../support/models/made-models.js";
import { floats, ints, type ModelFile, node } from "../support/models/onnx-file.js";
import { runBatch } from "../support/run-batch.js";
import { readiness } from "../support/stack/processes.js";
import type { TestStack } from "../support/stack/stack.js";

/** Returns its rows without those whose first column exceeds a million, which no check at load reveals. */
const leavesOut: ModelFile = {
  nodes: [
    node("Slice", ["x", "from", "to", "columns"], ["first"]),
    node("Squeeze", ["first", "columns"], ["f"]),
    node("Less", ["f", "most"], ["kept"]),
    node("Compress", ["x", "kept"], ["y"], { axis: 0 }),
  ],
  constants: { from: ints(0), to: ints(1), columns: ints(1), most: floats([], [1e6]) },
  inputs: { x: ["float32", ["n", 2]] },
  outputs: { y: ["float32", ["m", 2]] },
};

describe("a declared version whose runs turn out to return fewer rows than they got", () => {
  let stack: TestStack;
  const isJoined = (worker: number) =>
    scrape(`http://127.0.0.1:${stack.workers[worker]?.port}`, "ml_joining", { model: "leaves-out" });
  const joining = async () => (await stack.get("/v1/models/leaves-out")).body.versions[0].joining;

  beforeAll(async () => {
    const manifest = { kind: "tensor", batching: { join: "always", max_delay_ms: 200 } };
    const tabular = {
      kind: "tabular",
      input: { tensor: "x", features: ["a", "b"] },
      batching: { join: "always" },
    };
    stack = await startWithModels(
      { "leaves-out": { graph: leavesOut, manifest }, table: { graph: leavesOut, manifest: tabular } },
      { workers: 2 },
    );
  });
  afterAll(() => stack.close());

  test("gives each request its own output, and is not joined on any worker until it is loaded again", async () => {
    expect(await joining()).toMatchObject({ mode: "declared" });
    expect([await isJoined(0), await isJoined(1)]).toEqual([1, 1]);
    const inputs = Array.from({ length: 24 }, (_, i) => (i % 6 === 5 ? [2e6, i] : [i, i + 1]));
    const answers = await Promise.all(inputs.map((row) => stack.predict("leaves-out", { x: [row] })));
    expect(answers.map(({ body }) => body.output)).toEqual(
      inputs.map((row) => ({ y: (row[0] as number) > 1e6 ? [] : [row] })),
    );
    await eventually(async () => {
      expect(await joining()).toEqual({
        mode: "off",
        reason: expect.stringMatching(/output "y" had \d+ entries for \d+ rows/),
      });
      expect([await isJoined(0), await isJoined(1)]).toEqual([0, 0]);
    });
    const logged = stack.log.filter(({ message }) => message?.startsWith("a version's outputs are not one per row"));
    expect(logged.length).toBeGreaterThan(0);
    await stack.post("/v1/models/leaves-out/unload", { version: "1" }, { as: "admin" });
    await eventually(async () => {
      expect((await stack.get("/v1/models/leaves-out")).status).toBe(404);
      // Unloaded on both workers, since a worker that still has it would keep its joining state.
      const held = await Promise.all(stack.workers.map(async (worker) => (await readiness(worker)).models));
      expect(held.flat().filter(({ model }) => model === "leaves-out")).toEqual([]);
    });
    await eventually(async () => {
      const { status } = await stack.post("/v1/models/leaves-out/load", {}, { as: "admin" });
      expect(status).toBe(200);
      expect(await joining()).toMatchObject({ mode: "declared" });
    });
  });

  test("gives every row of a batch its own output, also the row for which the model returns none", async () => {
    const rows = Array.from({ length: 40 }, (_, i) => [i === 17 ? 3e6 : i, i / 2]);
    const results = await runBatch(stack, "table", rows);
    expect(results.map(({ output }) => output)).toEqual(
      rows.map((row) => ({ y: (row[0] as number) > 1e6 ? [] : [row] })),
    );
    await eventually(async () => {
      expect((await stack.get("/v1/models/table")).body.joining).toMatchObject({ mode: "off" });
    });
  });
});
