import { type ConstantTensor, floats, ints, node } from "../../support/models/onnx-file.js";
import { type OperatorCases, operator, rowCase, withMoreApart } from "./row-case.js";

const f = (...rest: number[]) => ["float32", ...rest] as const;
const made = (...dims: number[]): ConstantTensor => {
  const count = dims.reduce((size, length) => size * length, 1);
  return floats(
    dims,
    Array.from({ length: count }, (_, i) => Math.cos(i)),
  );
};
const ones = (count: number): ConstantTensor => floats([count], new Array<number>(count).fill(1));

const reductions =
  "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare";

/** Moves the rows to the second dimension, which has another meaning for these operators. */
const behind = {
  before: [node("Transpose", ["x"], ["t"], { perm: [1, 0, 2] })],
  gives: ["u"],
  after: [node("Transpose", ["u"], ["y"], { perm: [1, 0, 2] })],
};

const recurrences = [
  ["LSTM", 4],
  ["GRU", 3],
  ["RNN", 1],
] as const;

export const reduceCases: readonly OperatorCases[] = [
  ...reductions.split(" ").map((type) =>
    withMoreApart(
      operator(
        type,
        { opset: 18, before: [node("Abs", ["x"], ["p"])], takes: ["p", "axes"], constants: { axes: ints(-1) } },
        { constants: { axes: ints(0) } },
        { constants: {}, takes: ["p"] },
        { constants: { axes: ints(-2) }, with: { keepdims: 0 } },
      ),
      rowCase(type, { opset: 18, takes: ["x"], with: { noop_with_empty_axes: 1 } }),
      rowCase(type, {
        opset: 11,
        before: [node("Abs", ["x"], ["p"])],
        takes: ["p"],
        with: { axes: [1], keepdims: 0 },
      }),
    ),
  ),
  ...["Softmax", "LogSoftmax", "Hardmax"].map((type) =>
    withMoreApart(
      operator(type, {}, { with: { axis: 0 } }, { opset: 11, inputs: { x: f(2, 2) }, with: { axis: 0 } }),
      rowCase(type, { opset: 11, inputs: { x: f(2, 2) } }),
    ),
  ),
  operator(
    "LayerNormalization",
    { inputs: { x: f(2, 3) }, constants: { w: ones(3), b: made(3) } },
    { constants: { w: made(2, 3) }, with: { axis: 0 }, inputs: { x: f(3) } },
    { inputs: { x: f(3) }, constants: { w: made(2, 3) }, with: { axis: 1 }, checkedByRuns: false },
  ),
  operator(
    "RMSNormalization",
    { opset: 23, inputs: { x: f(2, 3) }, constants: { w: ones(3) } },
    { inputs: { x: f(3) }, constants: { w: made(2, 3) }, with: { axis: 0 } },
  ),
  operator("LpNormalization", {}, { with: { axis: 0 } }),
  operator("MeanVarianceNormalization", { with: { axes: [1] } }, { with: {}, inputs: { x: f(2, 2, 2) } }),
  operator(
    "InstanceNormalization",
    { inputs: { x: f(2, 3) }, constants: { w: ones(2), b: made(2) } },
    { ...behind, takes: ["t", "w", "b"], constants: { w: made(2), b: made(2) } },
  ),
  operator(
    "GroupNormalization",
    { opset: 21, inputs: { x: f(2, 3) }, constants: { w: ones(2), b: made(2) }, with: { num_groups: 1 } },
    { ...behind, takes: ["t", "w", "b"], constants: { w: ones(2), b: made(2) } },
  ),
  operator(
    "LRN",
    { inputs: { x: f(3, 2, 2) }, with: { size: 3, alpha: { float: 0.9 } } },
    {
      before: [node("Transpose", ["x"], ["t"], { perm: [1, 0, 2, 3] })],
      takes: ["t"],
      gives: ["u"],
      after: [node("Transpose", ["u"], ["y"], { perm: [1, 0, 2, 3] })],
    },
  ),
  operator(
    "BatchNormalization",
    { inputs: { x: f(2, 3) }, constants: { w: ones(2), b: made(2), m: made(2), v: ones(2) } },
    { ...behind, takes: ["t", "w", "b", "m", "v"] },
    { with: { training_mode: 1 }, gives: ["y", "rm", "rv"], checkedByRuns: false },
  ),
  ...recurrences.map(([type, gates]) =>
    withMoreApart(
      operator(
        type,
        {
          inputs: { x: f(3, 2) },
          constants: { w: made(1, gates * 2, 2), r: made(1, gates * 2, 2) },
          before: [node("Transpose", ["x"], ["t"], { perm: [1, 0, 2] })],
          takes: ["t", "w", "r"],
          gives: ["", "h"],
          after: [node("Transpose", ["h"], ["y"], { perm: [1, 0, 2] })],
          with: { hidden_size: 2 },
        },
        // A state carried from one row to the next.
        {
          before: [],
          takes: ["x", "w", "r"],
          gives: ["h"],
          after: [node("ReduceMax", ["h"], ["y"], { axes: [1, 2], keepdims: 0 })],
        },
        // Initial states of two rows, also for a run of one row.
        {
          constants: { w: made(1, gates * 2, 2), r: made(1, gates * 2, 2), state: made(1, 2, 2) },
          takes: ["t", "w", "r", "", "", "state"],
        },
      ),
      rowCase(type, {
        inputs: { x: f(3, 2), n: ["int64"], state: f(1, 2) },
        below: 1,
        constants: { w: made(2, gates * 2, 2), r: made(2, gates * 2, 2), least: ints(1) },
        before: [
          node("Transpose", ["x"], ["t"], { perm: [1, 0, 2] }),
          node("Transpose", ["state"], ["one"], { perm: [1, 0, 2] }),
          node("Concat", ["one", "one"], ["s"], { axis: 0 }),
          node("Add", ["n", "least"], ["m"]),
          node("Cast", ["m"], ["lengths"], { to: 6 }),
        ],
        takes: ["t", "w", "r", "", "lengths", "s"],
        gives: ["h"],
        after: [node("Transpose", ["h"], ["y"], { perm: [2, 0, 1, 3] })],
        with: { hidden_size: 2, direction: "bidirectional" },
      }),
    ),
  ),
];
