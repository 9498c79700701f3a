import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type MadeModel, startWithModels } from "../support/models/made-models.js";
import { floats, type ModelFile, node, type ValueFile } from "../support/models/onnx-file.js";
import { runBatch } from "../support/run-batch.js";
import type { TestStack } from "../support/stack/stack.js";

/** `x` [n, 2] times weights, as `dtype`, with the declared output shape `shape`. */
function linear(
  weights: number[][],
  dtype: "float32" | "float64" | "float16" | "int64" | "int32",
  shape: ValueFile[1],
  then = "Identity",
): ModelFile {
  const to = { float32: 1, float64: 11, float16: 10, int64: 7, int32: 6 }[dtype];
  return {
    nodes: [
      node("MatMul", ["x", "w"], ["p"]),
      node(then, ["p"], ["q"], then === "Softmax" ? { axis: 1 } : {}),
      node("Cast", ["q"], ["y"], { to }),
    ],
    constants: { w: floats([2, (weights[0] as number[]).length], weights.flat()) },
    inputs: { x: ["float32", ["n", 2]] },
    outputs: { y: [dtype, shape] },
  };
}

const tabular = (output: object): object => ({ kind: "tabular", input: { tensor: "x", features: ["a", "b"] }, output });
const classes = (labels: string[], more = {}) => ({ head: "classifier", probabilities: "y", labels, ...more });
const two = [
  [1, -1],
  [0.5, 2],
];
const one = [[1], [0]];
const three = [
  [1, 10, 100],
  [0, 0, 0],
];
/** Hides the output's width from shape inference, like tools that always declare one column. */
const hidden = (graph: ModelFile): ModelFile => ({
  ...graph,
  nodes: [...graph.nodes.slice(0, -1), node("Compress", ["q", "all"], ["y"], { axis: 1 })],
  constants: { ...graph.constants, all: { dtype: "bool", dims: [3], data: [1, 1, 1] } },
});

const refused: Record<string, [MadeModel, RegExp]> = {
  "three-declared-as-one": [
    { graph: hidden(linear(three, "float32", ["n", 1])), manifest: tabular({ head: "regressor", value: "y" }) },
    RegExp(
      'head "regressor" does not fit: output "y" has the shape \\[1, 3\\], ' +
        "expected \\[1\\] or \\[1, 1\\]: name its columns",
    ),
  ],
  "three-left-open": [
    { graph: hidden(linear(three, "float32", ["n", "k"])), manifest: tabular({ head: "regressor", value: "y" }) },
    /does not fit: output "y" has the shape \[1, 3\]/,
  ],
  "score-of-three": [
    {
      graph: hidden(linear(three, "float32", ["n", "k"])),
      manifest: tabular({ head: "anomaly", score: "y", threshold: 1 }),
    },
    /a score is one number a row/,
  ],
  "wrong-targets": [
    {
      graph: hidden(linear(three, "float32", ["n", "k"])),
      manifest: tabular({ head: "regressor", value: "y", targets: ["a", "b"] }),
    },
    /the targets and the tensor must fit each other/,
  ],
  "wrong-labels": [
    {
      graph: hidden(linear(three, "float32", ["n", "k"], "Softmax")),
      manifest: tabular(classes(["a", "b"])),
    },
    /the labels and the tensor must fit each other/,
  ],
  logits: [
    { graph: linear(two, "float32", ["n", 2]), manifest: tabular(classes(["no", "yes"])) },
    /holds no probabilities.*set model\.json \/output\/activation to "softmax" or "sigmoid".*or to "none"/,
  ],
  "text-for-a-number": [
    {
      graph: {
        nodes: [node("Cast", ["x"], ["y"], { to: 8 })],
        inputs: { x: ["float32", ["n", 2]] },
        outputs: { y: ["string", ["n", 2]] },
      },
      manifest: tabular(classes(["no", "yes"])),
    },
    /must be numeric, is string/,
  ],
  "four-rows": [
    {
      graph: {
        nodes: [node("Relu", ["x"], ["y"])],
        inputs: { x: ["float32", [4, 2]] },
        outputs: { y: ["float32", [4, 2]] },
      },
      manifest: tabular({ head: "raw" }),
    },
    /takes exactly 4 rows: export the model with a free first dimension/,
  ],
  "no-shape": [
    {
      graph: {
        nodes: [node("Relu", ["x"], ["y"])],
        inputs: { x: ["float32", null] },
        outputs: { y: ["float32", null] },
      },
    },
    /input "x" declares no shape: export the model with a shape/,
  ],
};

const softmax = (values: number[]): number[] => {
  const all = values.map(Math.exp);
  return all.map((value) => value / all.reduce((sum, one) => sum + one, 0));
};

const served: Record<string, MadeModel> = {
  ...Object.fromEntries(
    (["float32", "float64", "float16"] as const).flatMap((dtype) => [
      [
        `probabilities-${dtype}`,
        { graph: linear(two, dtype, ["n", 2], "Softmax"), manifest: tabular(classes(["no", "yes"])) },
      ],
      [
        `logits-${dtype}`,
        { graph: linear(two, dtype, ["n", 2]), manifest: tabular(classes(["no", "yes"], { activation: "softmax" })) },
      ],
    ]),
  ),
  sigmoid: {
    graph: linear(two, "float32", ["n", 2]),
    manifest: tabular(classes(["no", "yes"], { activation: "sigmoid" })),
  },
  scores: {
    graph: linear(two, "float32", ["n", 2]),
    manifest: tabular(classes(["no", "yes"], { activation: "none" })),
  },
  targets: {
    graph: hidden(linear(three, "float32", ["n", 1])),
    manifest: tabular({ head: "regressor", value: "y", targets: ["one", "ten", "hundred"] }),
  },
  ...Object.fromEntries(
    (["float32", "float64", "float16", "int64", "int32"] as const).flatMap((dtype) => [
      [`value-${dtype}`, { graph: linear(one, dtype, ["n", 1]), manifest: tabular({ head: "regressor", value: "y" }) }],
      [
        `score-${dtype}`,
        {
          graph: linear(one, dtype, ["n", 1]),
          manifest: tabular({ head: "anomaly", score: "y", threshold: dtype.startsWith("int") ? 3 : 0.7 }),
        },
      ],
    ]),
  ),
  flags: {
    graph: linear(two, "float32", ["n", 2]),
    manifest: tabular({ head: "multi_label", probabilities: "y", labels: ["p", "q"], threshold: [0.7, 0.1] }),
  },
};

describe("heads", () => {
  let stack: TestStack;
  beforeAll(async () => {
    const all = Object.fromEntries(Object.entries(refused).map(([name, [model]]) => [name, model]));
    stack = await startWithModels({ ...all, ...served });
  });
  afterAll(() => stack.close());

  /** The output of a single prediction; asserts that the row in a batch among others has the same. */
  const outputOf = async (model: string, row: number[]) => {
    const { body } = await stack.predict(model, row);
    expect(body.status, JSON.stringify(body)).toBe("succeeded");
    const rows = await runBatch(stack, model, [[9, 9], row, [-3, 2], row]);
    for (const i of [1, 3]) expect(rounded(rows[i]?.output)).toEqual(rounded(body.output));
    return body.output;
  };
  /** Numbers at the precision of float32, in which rows of batches are stored. */
  const rounded = (output: unknown): unknown =>
    JSON.parse(JSON.stringify(output), (_key, value: unknown) =>
      typeof value === "number" ? Number(value.toPrecision(6)) : value,
    );

  test.each(Object.entries(refused))("%s is refused at load with the remedy", async (name, [, reason]) => {
    const answer = await fetch(`http://127.0.0.1:${stack.workers[0]?.port}/ready`);
    const { refused: all } = (await answer.json()) as { refused: { model: string; reason: string }[] };
    expect(all.find(({ model }) => model === name)?.reason).toMatch(reason);
    expect((await stack.get(`/v1/models/${name}`)).status).toBe(404);
  });

  test.each(["float32", "float64", "float16"])(
    "a classifier reads %s, as probabilities and as logits",
    async (dtype) => {
      const [no, yes] = softmax([0.5 + 0.5 * 0.25, -0.5 + 2 * 0.25]) as [number, number];
      for (const model of [`probabilities-${dtype}`, `logits-${dtype}`]) {
        const output = await outputOf(model, [0.5, 0.25]);
        expect(output.label).toBe("no");
        expect(output.probabilities.no).toBeCloseTo(no, dtype === "float16" ? 3 : 6);
        expect(output.probabilities.yes).toBeCloseTo(yes, dtype === "float16" ? 3 : 6);
        expect(output.confidence).toBe(output.probabilities.no);
      }
    },
  );

  test("an activation is applied to each row by itself, or not at all if the manifest says so", async () => {
    const sigmoid = await outputOf("sigmoid", [2, 0]);
    expect(sigmoid.probabilities.no).toBeCloseTo(1 / (1 + Math.exp(-2)), 6);
    expect(sigmoid.probabilities.yes).toBeCloseTo(1 / (1 + Math.exp(2)), 6);
    expect(await outputOf("scores", [2, 0])).toEqual({
      label: "no",
      confidence: 2,
      probabilities: { no: 2, yes: -2 },
    });
  });

  test("a regressor with named targets gives each its column", async () => {
    expect(await outputOf("targets", [3, 1])).toEqual({ values: { one: 3, ten: 30, hundred: 300 } });
  });

  test.each(["float32", "float64", "float16", "int64", "int32"])(
    "values and scores are read from %s",
    async (dtype) => {
      expect(await outputOf(`value-${dtype}`, [3, 0])).toEqual({ value: 3 });
      const [at, below] = dtype.startsWith("int") ? [3, 2] : [0.7, 0.69];
      expect((await outputOf(`score-${dtype}`, [at, 0])).is_anomaly).toBe(
        // The float32 nearest to 0.7, as a float64, is slightly less than 0.7.
        dtype === "float64" ? Math.fround(at) >= 0.7 : true,
      );
      expect((await outputOf(`score-${dtype}`, [below, 0])).is_anomaly).toBe(false);
    },
  );

  test("a score equal to the threshold reaches it, although float32 cannot represent the threshold", async () => {
    expect((await outputOf("flags", [0.7, 0])).labels).toEqual(["p"]);
    expect((await outputOf("flags", [-0.1, 0])).labels).toEqual(["q"]);
  });
});
