import { floats, ints, node } from "../../support/models/onnx-file.js";
import { type OperatorCases, operator, rowCase, transposed, withMoreApart } from "./row-case.js";

const f = (...rest: number[]) => ["float32", ...rest] as const;

export const shapeCases: readonly OperatorCases[] = [
  operator(
    "Shape",
    {
      inputs: { x: f(2, 3) },
      gives: ["s"],
      after: [node("Flatten", ["x"], ["t"]), node("Reshape", ["t", "s"], ["y"])],
    },
    // Adds the number of rows to each row.
    {
      inputs: { x: f(3) },
      after: [
        node("Cast", ["s"], ["n"], { to: 1 }),
        node("ReduceSum", ["n"], ["all"], { keepdims: 0 }),
        node("Add", ["x", "all"], ["y"]),
      ],
    },
  ),
  operator(
    "Size",
    {
      inputs: { x: f(2, 3) },
      constants: { one: ints(0) },
      takes: ["x"],
      gives: ["n"],
      after: [
        node("Unsqueeze", ["n", "one"], ["s"]),
        node("Expand", ["half", "s"], ["t"]),
        node("Reshape", ["t", "rest"], ["y"]),
      ],
      before: [
        node("Constant", [], ["half"], { value: { tensor: floats([1], [0.5]) } }),
        node("Constant", [], ["rest"], { value: { tensor: ints(-1, 6) } }),
      ],
    },
    { after: [node("Cast", ["n"], ["t"], { to: 1 }), node("Add", ["x", "t"], ["y"])] },
  ),
  operator(
    "Constant",
    {
      takes: [],
      gives: ["w"],
      with: { value: { tensor: floats([3], [1, 2, 3]) } },
      after: [node("Add", ["x", "w"], ["y"])],
    },
    { with: { value: { tensor: floats([2, 1], [1, 2]) } } },
    {
      with: { value_floats: { floats: [1, 2] } },
      inputs: { x: f(1) },
      after: [node("Reshape", ["w", "s"], ["t"]), node("Add", ["x", "t"], ["y"])],
      constants: { s: ints(2, 1) },
    },
  ),
  operator(
    "ConstantOfShape",
    { takes: ["s"], before: [node("Shape", ["x"], ["s"])], gives: ["t"], after: [node("Sub", ["t", "x"], ["y"])] },
    { before: [], constants: { s: ints(2, 3) } },
    {
      inputs: { x: f(1), ids: ["int64"] },
      before: [],
      takes: ["ids"],
      after: [node("ReduceSum", ["t"], ["all"], { keepdims: 0 }), node("Add", ["x", "all"], ["y"])],
      below: 3,
      with: { value: { tensor: floats([1], [1]) } },
    },
  ),
  operator(
    "Range",
    {
      constants: { from: floats([], [0]), to: floats([], [3]), by: floats([], [1]) },
      takes: ["from", "to", "by"],
      gives: ["t"],
      after: [node("Add", ["x", "t"], ["y"])],
    },
    // Adds each row's index.
    {
      before: [node("Shape", ["x"], ["s"]), node("Gather", ["s", "first"], ["n"])],
      constants: {
        from: { dtype: "int64", dims: [], data: [0] },
        by: { dtype: "int64", dims: [], data: [1] },
        first: { dtype: "int64", dims: [], data: [0] },
      },
      takes: ["from", "n", "by"],
      outputs: { t: "int64" },
      after: [],
    },
  ),
  withMoreApart(
    operator(
      "Reshape",
      { inputs: { x: f(4) }, constants: { s: ints(0, 2, -1) } },
      { constants: { s: ints(2, -1) } },
      { constants: { s: ints(1, -1) } },
      { constants: { s: ints(-1, 8) } },
      // A number that may be 0 or -1 is not a length.
      {
        inputs: { x: f(2) },
        before: [
          transposed("x", "t"),
          node("Neg", ["zero"], ["k"]),
          node("Concat", ["one", "k", "rest"], ["s"], { axis: 0 }),
        ],
        constants: { zero: ints(0), one: ints(1), rest: ints(-1) },
        takes: ["t", "s"],
        gives: ["u"],
        after: [node("Transpose", ["u"], ["v"], { perm: [2, 0, 1] }), node("Reshape", ["v", "rest"], ["y"])],
      },
    ),
    rowCase("Reshape", {
      inputs: { x: f(4) },
      constants: { s: ints(-1) },
      gives: ["t"],
      after: [node("Reshape", ["t", "back"], ["y"])],
      before: [node("Constant", [], ["back"], { value: { tensor: ints(-1, 4) } })],
    }),
  ),
  operator("Flatten", { inputs: { x: f(2, 3) } }, { with: { axis: 0 } }, { with: { axis: 2 } }),
  operator(
    "Transpose",
    { inputs: { x: f(2, 3) }, with: { perm: [0, 2, 1] } },
    { with: { perm: [1, 0, 2] } },
    { with: {} },
  ),
  operator(
    "Squeeze",
    { inputs: { x: f(1, 3) }, constants: { axes: ints(1) } },
    { constants: {} },
    { opset: 11, constants: {} },
    { constants: { axes: ints(0) }, checkedByRuns: false },
  ),
  operator("Unsqueeze", { constants: { axes: ints(1) } }, { constants: { axes: ints(0) } }),
  operator(
    "Expand",
    { inputs: { x: f(1) }, constants: { s: ints(1, 3) } },
    { inputs: { x: f(3) }, constants: { s: ints(2, 3) } },
    { inputs: { x: f(3) }, constants: { s: ints(2, 1, 1) } },
  ),
  withMoreApart(
    operator(
      "Tile",
      { constants: { times: ints(1, 2) } },
      {
        constants: { times: ints(2, 1) },
        gives: ["t"],
        after: [node("Reshape", ["t", "s"], ["y"])],
        before: [node("Constant", [], ["s"], { value: { tensor: ints(-1, 6) } })],
      },
    ),
    rowCase("Tile", {
      constants: { at: ints(0), ones: ints(1), w: floats([1, 3], [1, 2, 3]) },
      before: [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "at"], ["n"]),
        node("Concat", ["n", "ones"], ["times"], { axis: 0 }),
      ],
      takes: ["w", "times"],
      gives: ["t"],
      after: [node("Add", ["x", "t"], ["y"])],
    }),
  ),
  operator(
    "Concat",
    { takes: ["x", "x"], with: { axis: 1 } },
    { with: { axis: 0 } },
    { constants: { w: floats([1, 3], [1, 2, 3]) }, takes: ["x", "w"], with: { axis: 1 }, checkedByRuns: false },
  ),
  operator(
    "Split",
    { inputs: { x: f(4) }, gives: ["y", "z"], with: { axis: 1 }, outputs: { y: "float32", z: "float32" } },
    { with: { axis: 0 }, constants: { lengths: ints(1, -1) }, checkedByRuns: false },
    { inputs: { x: f(3) }, with: { axis: 0 }, after: [] },
  ),
];
