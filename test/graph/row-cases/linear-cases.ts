import type { Dtype } from "@millrace/shared/tensors/dtype.js";
import { type ConstantTensor, node } from "../../support/models/onnx-file.js";
import { type OperatorCases, operator, rowCase, transposed, withMoreApart } from "./row-case.js";

const f = (...rest: number[]) => ["float32", ...rest] as const;
const u = (...rest: number[]) => ["uint8", ...rest] as const;

/** A constant tensor of varied numbers. */
const made = (dims: readonly number[], dtype: Dtype = "float32"): ConstantTensor => {
  const count = dims.reduce((size, length) => size * length, 1);
  const data = Array.from({ length: count }, (_, i) => (dtype === "float32" ? Math.sin(i + 1) : 1 + (i % 5)));
  return { dtype, dims, data };
};
const scale = (...data: number[]): ConstantTensor => ({
  dtype: "float32",
  dims: data.length === 1 ? [] : [data.length],
  data,
});
const zero = (...data: number[]): ConstantTensor => ({
  dtype: "uint8",
  dims: data.length === 1 ? [] : [data.length],
  data,
});

/** Swaps the first two dimensions before and after the operator: rows become channels. */
const asChannels = (rank: number) => {
  const perm = [1, 0, ...Array.from({ length: rank - 2 }, (_, d) => d + 2)];
  return { before: [node("Transpose", ["x"], ["t"], { perm })], back: node("Transpose", ["u"], ["y"], { perm }) };
};
const swapped = asChannels(4);

const quantized = {
  a: scale(0.1),
  az: zero(3),
  w: made([2, 1, 1, 1], "uint8"),
  b: scale(0.2),
  bz: zero(1),
  c: scale(0.05),
  cz: zero(2),
};

export const linearCases: readonly OperatorCases[] = [
  withMoreApart(
    operator(
      "MatMul",
      { constants: { w: made([3, 2]) } },
      // Rows times their own transpose: each row with each.
      { constants: {}, before: [transposed("x", "t")], takes: ["x", "t"] },
      { constants: {}, before: [transposed("x", "t")], takes: ["t", "x"] },
      { constants: { w: made([2, 3, 3]) } },
    ),
    rowCase("MatMul", { inputs: { x: f(2, 3), z: f(3, 2) } }),
    rowCase("MatMul", {
      constants: { w: made([2, 3]) },
      before: [transposed("x", "t")],
      takes: ["w", "t"],
      gives: ["u"],
      after: [transposed("u")],
    }),
  ),
  operator(
    "MatMulInteger",
    { inputs: { x: u(3) }, constants: { w: made([3, 2], "uint8"), xz: zero(3) }, outputs: { y: "int32" } },
    { constants: { w: made([3, 2], "uint8"), xz: zero(3, 4) }, checkedByRuns: false },
  ),
  operator(
    "QLinearMatMul",
    { inputs: { x: u(3) }, constants: { ...quantized, w: made([3, 2], "uint8") }, outputs: { y: "uint8" } },
    { constants: { ...quantized, w: made([3, 2], "uint8"), a: scale(0.1, 0.5), az: zero(3, 3) }, checkedByRuns: false },
  ),
  withMoreApart(
    operator(
      "Gemm",
      { constants: { w: made([2, 3]), c: made([2]) }, with: { transB: 1 } },
      { constants: { w: made([2, 3]), c: made([2, 2]) } },
      { constants: { w: made([2, 2]), c: made([2]) }, with: { transA: 1 }, takes: ["x", "w"], inputs: { x: f(1) } },
    ),
    rowCase("Gemm", {
      before: [transposed("x", "t")],
      takes: ["t", "w", "c"],
      with: { transA: 1, transB: 1 },
      constants: { w: made([2, 3]), c: made([2]) },
    }),
  ),
  operator(
    "Conv",
    { inputs: { x: f(2, 4, 4) }, constants: { w: made([3, 2, 3, 3]) } },
    {
      inputs: { x: f(1, 4, 4) },
      constants: { w: made([1, 2, 3, 3]) },
      before: swapped.before,
      takes: ["t", "w"],
      gives: ["u"],
      after: [swapped.back],
    },
    { inputs: { x: f(1, 4, 4), w: f(1, 3, 3) }, constants: {} },
  ),
  operator(
    "ConvInteger",
    { inputs: { x: u(1, 2, 2) }, constants: { w: made([2, 1, 1, 1], "uint8") }, outputs: { y: "int32" } },
    {
      constants: { w: made([1, 2, 1, 1], "uint8") },
      before: swapped.before,
      takes: ["t", "w"],
      gives: ["u"],
      after: [swapped.back],
    },
  ),
  operator(
    "ConvTranspose",
    { inputs: { x: f(2, 3, 3) }, constants: { w: made([2, 1, 2, 2]) } },
    {
      inputs: { x: f(1, 3, 3) },
      constants: { w: made([2, 1, 2, 2]) },
      before: swapped.before,
      takes: ["t", "w"],
      gives: ["u"],
      after: [swapped.back],
    },
  ),
  operator(
    "QLinearConv",
    { inputs: { x: u(1, 2, 2) }, constants: quantized, outputs: { y: "uint8" } },
    {
      constants: { ...quantized, w: made([1, 2, 1, 1], "uint8") },
      before: swapped.before,
      takes: ["t", ...Object.keys(quantized)],
      gives: ["u"],
      after: [swapped.back],
    },
  ),
  operator(
    "MaxPool",
    { inputs: { x: f(1, 4, 4) }, with: { kernel_shape: [2, 2] } },
    { gives: ["z", "y"], outputs: { y: "int64" } },
    {
      before: [node("Transpose", ["x"], ["t"], { perm: [1, 2, 0, 3] })],
      takes: ["t"],
      gives: ["u"],
      after: [node("Transpose", ["u"], ["y"], { perm: [2, 0, 1, 3] })],
      with: { kernel_shape: [1, 2], pads: [0, 0, 0, 0] },
      checkedByRuns: false,
    },
  ),
  ...["AveragePool", "LpPool"].map((type) =>
    operator(
      type,
      { inputs: { x: f(1, 4, 4) }, with: { kernel_shape: [2, 2] } },
      {
        before: [node("Transpose", ["x"], ["t"], { perm: [1, 2, 0, 3] })],
        takes: ["t"],
        gives: ["u"],
        after: [node("Transpose", ["u"], ["y"], { perm: [2, 0, 1, 3] })],
        with: { kernel_shape: [3, 1], pads: [1, 0, 1, 0] },
      },
    ),
  ),
  ...["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"].map((type) =>
    operator(
      type,
      { inputs: { x: f(1, 4, 4) } },
      {
        before: [node("Transpose", ["x"], ["t"], { perm: [1, 2, 0, 3] })],
        takes: ["t"],
        gives: ["u"],
        after: [node("Transpose", ["u"], ["v"], { perm: [2, 0, 1, 3] }), node("Add", ["x", "v"], ["y"])],
      },
    ),
  ),
  operator(
    "Einsum",
    { inputs: { x: f(2, 3) }, constants: { w: made([3, 4]) }, with: { equation: "nij, jk -> nik" } },
    { constants: { w: made([2, 2]) }, with: { equation: "nij,nk->nik" }, checkedByRuns: true },
    { constants: { w: made([3]) }, with: { equation: "nij,j->i" } },
    { constants: {}, takes: ["x", "x"], with: { equation: "nij,mij->nm" } },
  ),
];
