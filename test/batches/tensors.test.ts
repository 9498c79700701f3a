import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { counts, finalBatch, ndjson, runBatch, submitBatch } from "../support/batches.js";
import { TestStack } from "../support/stack/stack.js";

/** Models without a manifest. */
const bare = ["dynamic-inner", "echo-string", "batch-mean", "row-swap-shape", "fixed", "scalars", "two-in-two-out"];
const three = [1, 2, 3];

describe("batches for models that are only an ONNX file", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: bare });
  });
  afterAll(() => stack?.close());

  test("inputs of different inner size each have their own output, even if they would fit one tensor", async () => {
    const widths = [2, 1, 3, 2, 2, 1, 1, 3, 3];
    const inputs = Array.from({ length: 126 }, (_, i) => ({
      x: Array.from({ length: i < 63 ? 1 : 1 + (i % 2) }, (_, r) =>
        Array.from({ length: (i < 63 ? widths[i % 3] : widths[i % 9]) as number }, (_, k) => i + r / 2 + k / 8),
      ),
    }));
    const { batch, results } = await runBatch(stack, "dynamic-inner", ndjson(inputs));
    expect(batch.counts).toEqual(counts(inputs.length));
    expect(results.map(({ output }) => output)).toEqual(
      inputs.map(({ x }) => ({ y: x.map((row) => row.map((value) => value + 1)) })),
    );
  });

  test.each<[string, unknown[], unknown[]]>([
    [
      "echo-string",
      ["größe", "", '"\\\n', "日本"].map((text) => ({ x: [[text, "a", "b"]] })),
      ["größe", "", '"\\\n', "日本"].map((text) => ({ y: [[text, "a", "b"]] })),
    ],
    [
      "two-in-two-out",
      three.map((i) => ({ ids: [[i, "2"]], weights: [[0.5, 1]] })),
      three.map((i) => ({ total: [i / 2 + 2], ids_out: [[i, 2]] })),
    ],
    [
      "batch-mean",
      Array.from({ length: 70 }, (_, i) => ({ x: [i, i + 2].map((value) => [value, 2]) })),
      Array.from({ length: 70 }, () => ({ y: [-1, 1].map((value) => [value, 0]) })),
    ],
    ["row-swap-shape", three.map((i) => ({ x: [[i, -i]] })), three.map((i) => ({ y: [0, 1].map(() => [i, -i]) }))],
    ["fixed", three.map((i) => ({ x: [[i, 0, 0, 1]] })), three.map((i) => ({ y: [[2 * i, 0, 0, 2]] }))],
    ["scalars", three.map((a) => ({ a, b: 2 })), three.map((a) => ({ sum: a + 2, product: 2 * a }))],
  ])("%s gives each input its own output", async (model, inputs, outputs) => {
    const { batch, results } = await runBatch(stack, model, ndjson(inputs));
    expect(batch.counts).toEqual(counts(inputs.length));
    expect(results.map(({ output }) => output)).toEqual(outputs);
  });

  test("large outputs make shorter pages, whose cursors still lead through all of them", async () => {
    const inputs = Array.from({ length: 24 }, (_, i) => ({ x: [Array.from({ length: 100_000 }, (_, k) => i + k)] }));
    const { id } = await submitBatch(stack, "dynamic-inner", ndjson(inputs));
    await finalBatch(stack, id);
    const lengths: number[] = [];
    let next = 0;
    for (let cursor: string | null = "0"; cursor !== null; ) {
      const headers = { accept: "application/json" };
      const { body } = await stack.get(`/v1/batches/${id}/results?limit=100&cursor=${cursor}`, { headers });
      for (const { index, output } of body.data) {
        expect([index, output.y[0].length, output.y[0][0]]).toEqual([next, 100_000, next + 1]);
        next += 1;
      }
      lengths.push(body.data.length);
      cursor = body.next_cursor;
    }
    expect(next).toBe(24);
    expect(lengths.length).toBeGreaterThan(1);
  });
});

describe("batches of rows that cannot share a run", () => {
  const table = (features: string[]) => ({
    kind: "tabular",
    input: { tensor: "x", features },
    output: { head: "raw" },
    batching: { bulk_rows: 8 },
  });
  const manifests = {
    "batch-mean": table(["a", "b"]),
    fixed: table(["a", "b", "c", "d"]),
    "row-swap-shape": table(["a", "b"]),
  };
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: Object.keys(manifests), manifests });
  });
  afterAll(() => stack?.close());

  test.each(Object.entries(manifests))("%s gives each row its output when alone", async (model, { input }) => {
    const rows = Array.from({ length: 20 }, (_, i) => input.features.map((_, k) => i - k / 2));
    const { batch, results } = await runBatch(stack, model, ndjson(rows));
    expect(batch.counts).toEqual(counts(20));
    const singles = await Promise.all(rows.map(async (row) => (await stack.predict(model, row)).body.output));
    expect(results.map(({ output }) => output)).toEqual(singles);
  });
});
