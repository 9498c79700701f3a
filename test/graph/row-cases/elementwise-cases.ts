import type { Dtype } from "@millrace/shared/tensors/dtype.js";
import { floats, ints, node } from "../../support/models/onnx-file.js";
import { type CaseOptions, type OperatorCases, operator, rowCase, transposed } from "./row-case.js";

const names = (list: string): string[] => list.split(/\s+/);

/** Element-wise operators mix rows only if other operators move the rows to another dimension. */
const unary = (type: string, dtype: Dtype = "float32", options: CaseOptions = {}): OperatorCases =>
  operator(
    type,
    { inputs: { x: [dtype, 3] }, outputs: { y: dtype }, ...options },
    { gives: ["t"], after: [transposed("t")] },
  );

/** A constant second tensor of two rows is broadcast against one row, and paired with two. */
const binary = (
  type: string,
  dtype: Dtype = "float32",
  made: Dtype = dtype,
  options: CaseOptions = {},
): OperatorCases => {
  const fixed = (dims: readonly number[]) => {
    const data = Array.from({ length: dims.reduce((size, n) => size * n, 1) }, (_, i) => 1 + (i % 3));
    return {
      w: {
        dtype,
        dims,
        data: dtype === "bool" ? data.map((n) => n % 2) : dtype === "string" ? data.map(String) : data,
      },
    };
  };
  const own = { inputs: { x: [dtype, 3] }, constants: fixed([1, 3]), outputs: { y: made }, ...options } as const;
  return operator(
    type,
    own,
    { constants: fixed([2, 3]) },
    { before: [transposed("x", "w")], constants: {}, takes: ["x", "w"], inputs: { x: [dtype, 2] } },
  );
};

export const elementwiseCases: readonly OperatorCases[] = [
  ...names(
    "Abs Acos Acosh Asin Asinh Atan Atanh Celu Cos Cosh Elu Erf Exp HardSigmoid HardSwish LeakyRelu Log Mish Neg " +
      "Reciprocal Relu Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Shrink Ceil Floor " +
      "Identity Round",
  ).map((type) => unary(type, "float32", { opset: 18 })),
  unary("Gelu", "float32", { opset: 20 }),
  unary("Swish", "float32", { opset: 24 }),
  unary("Not", "bool"),
  unary("BitwiseNot", "int32", { opset: 18 }),
  unary("IsInf", "float32", { outputs: { y: "bool" } }),
  unary("IsNaN", "float32", { outputs: { y: "bool" } }),
  unary("Cast", "float32", { with: { to: 11 }, outputs: { y: "float64" } }),
  unary("RegexFullMatch", "string", { opset: 20, with: { pattern: "a+" }, outputs: { y: "bool" } }),
  ...names("Add Div Mul Sub Pow PRelu").map((type) => binary(type)),
  ...names("Max Mean Min Sum").map((type) => {
    const cases = binary(type);
    // Version 6 does not broadcast: ONNX Runtime takes the first shape for that of the output.
    const old = rowCase(type, {
      opset: 7,
      constants: { w: floats([1, 3], [1, 2, 3]), at: ints(0), rest: ints(-1) },
      takes: ["w", "x"],
      gives: ["t"],
      after: [
        node("Shape", ["t"], ["s"]),
        node("Gather", ["s", "at"], ["n"]),
        node("Concat", ["n", "rest"], ["shape"], { axis: 0 }),
        node("Reshape", ["x", "shape"], ["y"]),
      ],
    });
    return { ...cases, mixed: [...cases.mixed, old] };
  }),
  ...names("Equal Greater GreaterOrEqual Less LessOrEqual").map((type) => binary(type, "float32", "bool")),
  ...names("And Or Xor").map((type) => binary(type, "bool")),
  ...names("BitwiseAnd BitwiseOr BitwiseXor").map((type) => binary(type, "int32", "int32", { opset: 18 })),
  binary("BitShift", "uint8", "uint8", { with: { direction: "LEFT" } }),
  operator(
    "Mod",
    { inputs: { x: ["int64", 3] }, constants: { w: ints(2, 3, 4) }, outputs: { y: "int64" } },
    { constants: { w: { dtype: "int64", dims: [2, 3], data: [2, 3, 4, 5, 6, 7] } } },
  ),
  binary("StringConcat", "string", "string", { opset: 20 }),
  operator(
    "Where",
    { inputs: { b: ["bool", 3], x: ["float32", 3] }, constants: { w: floats([1], [9]) } },
    { constants: { w: floats([2, 1], [8, 9]) } },
  ),
  operator(
    "Clip",
    { constants: { least: floats([], [-1]), most: floats([], [1]) } },
    // The bound is the smallest value over all rows.
    { constants: {}, before: [node("ReduceMax", ["x"], ["least"], { keepdims: 0 })], takes: ["x", "least"] },
  ),
  operator(
    "CastLike",
    { constants: { w: { dtype: "int64", dims: [], data: [0] } }, outputs: { y: "int64" } },
    { takes: ["x", "x"], outputs: { y: "float32" }, checkedByRuns: false },
  ),
  operator(
    "QuantizeLinear",
    { constants: { scale: floats([3], [0.1, 0.2, 0.3]) }, with: { axis: 1 }, outputs: { y: "uint8" } },
    { constants: { scale: floats([2], [0.01, 0.3]) }, with: { axis: 0 } },
  ),
  operator(
    "DequantizeLinear",
    { inputs: { x: ["uint8", 3] }, constants: { scale: floats([3], [0.1, 0.2, 0.3]) }, with: { axis: 1 } },
    { constants: { scale: floats([2], [0.1, 0.3]) }, with: { axis: 0 } },
  ),
  operator(
    "Dropout",
    { constants: { ratio: floats([], [0.5]) } },
    {
      constants: { ratio: floats([], [0.5]), trains: { dtype: "bool", dims: [], data: [1] } },
    },
  ),
];
