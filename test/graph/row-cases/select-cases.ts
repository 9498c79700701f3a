import type { ConstantTensor } from "../../support/models/onnx-file.js";
import { floats, ints, node } from "../../support/models/onnx-file.js";
import { type OperatorCases, operator, rowCase, transposed, withMoreApart } from "./row-case.js";

const f = (...rest: number[]) => ["float32", ...rest] as const;
const ids = (...rest: number[]) => ["int64", ...rest] as const;
const scalar = (data: number): ConstantTensor => ({ dtype: "int64", dims: [], data: [data] });
const table = floats([4, 2], [0, 1, 2, 3, 4, 5, 6, 7]);
const mask = (...data: number[]): ConstantTensor => ({ dtype: "bool", dims: [data.length], data });

export const selectCases: readonly OperatorCases[] = [
  withMoreApart(
    operator(
      "Gather",
      { constants: { at: ints(0, -1) }, with: { axis: 1 } },
      // Adds the first row to every row.
      { constants: { at: ints(0) }, with: { axis: 0 }, gives: ["t"], after: [node("Add", ["x", "t"], ["y"])] },
      { inputs: { x: f(3), at: ids() }, constants: {}, with: { axis: 0 }, below: 2 },
    ),
    rowCase("Gather", { inputs: { at: ids(2) }, constants: { table }, takes: ["table", "at"] }),
  ),
  operator(
    "GatherElements",
    { inputs: { x: f(4), at: ids(2) }, with: { axis: 1 } },
    { with: { axis: 0 }, inputs: { x: f(2), at: ids(2) }, below: 2 },
    { inputs: { x: f(3) }, constants: { at: { dtype: "int64", dims: [1, 3], data: [0, 0, 0] } }, with: { axis: 0 } },
  ),
  withMoreApart(
    operator(
      "GatherND",
      { inputs: { x: f(4), at: ids(1) }, with: { batch_dims: 1 } },
      { with: { batch_dims: 0 }, below: 2 },
    ),
    rowCase("GatherND", { inputs: { at: ids(1) }, constants: { table }, takes: ["table", "at"] }),
  ),
  operator(
    "ScatterElements",
    { inputs: { x: f(4), at: ids(1), u: f(1) }, with: { axis: 1 } },
    { inputs: { x: f(1), at: ids(1), u: f(1) }, with: { axis: 0 }, below: 2 },
  ),
  withMoreApart(
    operator(
      "Slice",
      { constants: { from: ints(0), to: ints(2), axes: ints(1) } },
      { constants: { from: ints(0), to: ints(1), axes: ints(0) } },
      { constants: { from: ints(-1), to: ints(2 ** 31 - 1), axes: ints(0) } },
      { constants: { from: ints(-1), to: ints(-(2 ** 31)), axes: ints(0), by: ints(-1) } },
    ),
    rowCase("Slice", { constants: { from: ints(0, 1), to: ints(2 ** 31 - 1, 3), axes: ints(0, -1) } }),
    rowCase("Slice", { opset: 9, with: { starts: [0, 1], ends: [2 ** 31 - 1, 3] } }),
    rowCase("Slice", { constants: { from: ints(-1), to: ints(-(2 ** 31)), axes: ints(1), by: ints(-1) } }),
  ),
  operator(
    "Compress",
    { constants: { kept: mask(1, 0, 1) }, with: { axis: 1 } },
    { constants: { kept: mask(1) }, with: { axis: 0 } },
    { constants: { kept: mask(1, 0, 1) }, with: {} },
  ),
  operator(
    "TopK",
    { constants: { k: ints(2) }, gives: ["y", "at"], outputs: { y: "float32", at: "int64" } },
    { constants: { k: ints(1) }, with: { axis: 0 } },
  ),
  ...["ArgMax", "ArgMin"].map((type) =>
    operator(
      type,
      { inputs: { x: f(2, 3) }, with: { axis: 1, keepdims: 0 }, outputs: { y: "int64" } },
      { with: { axis: 0, keepdims: 1 } },
      { with: { axis: 0, keepdims: 0 } },
    ),
  ),
  operator(
    "OneHot",
    { inputs: { x: ids(2) }, constants: { depth: scalar(4), values: floats([2], [0, 1]) } },
    { with: { axis: 0 } },
  ),
  operator(
    "Trilu",
    { inputs: { x: f(2, 2) } },
    { inputs: { x: f(2) } },
    {
      before: [node("Transpose", ["x"], ["t"], { perm: [1, 0, 2] })],
      takes: ["t"],
      gives: ["u"],
      after: [node("Transpose", ["u"], ["y"], { perm: [1, 0, 2] })],
    },
  ),
  operator(
    "CumSum",
    { constants: { axis: scalar(1) } },
    { constants: { axis: scalar(0) } },
    { constants: { axis: scalar(-2) } },
  ),
  operator(
    "ReverseSequence",
    { inputs: { x: f(4), n: ids() }, with: { batch_axis: 0, time_axis: 1 } },
    { inputs: { x: f(1) }, constants: { n: ints(2) }, with: { batch_axis: 1, time_axis: 0 } },
  ),
  operator(
    "Pad",
    { constants: { pads: ints(0, 1, 0, 1) } },
    { constants: { pads: ints(1, 0, 0, 0) } },
    {
      constants: { pads: ints(0, 0, 0, 0) },
      before: [node("Abs", ["pads"], ["own"])],
      takes: ["x", "own"],
      checkedByRuns: false,
    },
  ),
  withMoreApart(
    operator(
      "Resize",
      { inputs: { x: f(1, 2, 2) }, constants: { scales: floats([4], [1, 1, 2, 2]) }, takes: ["x", "", "scales"] },
      { constants: { scales: floats([4], [2, 1, 1, 1]) } },
      { constants: { sizes: ints(2, 1, 4, 4) }, takes: ["x", "", "", "sizes"] },
    ),
    rowCase("Resize", { opset: 10, inputs: { x: f(1, 2, 2) }, constants: { scales: floats([4], [1, 1, 2, 2]) } }),
  ),
  operator(
    "Upsample",
    { opset: 9, inputs: { x: f(1, 2, 2) }, constants: { scales: floats([4], [1, 1, 2, 2]) } },
    { constants: { scales: floats([4], [2, 1, 1, 1]) } },
  ),
  operator(
    "DepthToSpace",
    { inputs: { x: f(4, 1, 1) }, with: { blocksize: 2 } },
    { inputs: { x: f(1, 1, 1) }, before: [transposed("x", "t")], takes: ["t"], checkedByRuns: false },
  ),
  operator(
    "SpaceToDepth",
    { inputs: { x: f(1, 2, 2) }, with: { blocksize: 2 } },
    { inputs: { x: f(2, 2, 1) }, before: [transposed("x", "t")], takes: ["t"], checkedByRuns: false },
  ),
];
