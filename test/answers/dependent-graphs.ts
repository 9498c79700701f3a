import { type Feeds, float32, int64 } from "../support/models/made-models.js";
import { floats, ints, type ModelFile, node } from "../support/models/onnx-file.js";

/**
 * A model whose outputs depend on the other rows of a run, or on the position in it, with one-row inputs to show it.
 */
export interface DependentGraph {
  graph: ModelFile;
  inputs: Feeds[];
}

const width = 3;
const x = (...rows: number[][]): Feeds[] => rows.map((row) => ({ x: float32([1, width], row) }));
const usual = x([1, 2, 3], [-4, 0.5, 9], [100, -20, 7], [0, 0, 0.001]);

/** A model of nodes from `x` [n, 3] to `y`, the output of the last node. */
const onRows = (
  nodes: ModelFile["nodes"],
  constants: ModelFile["constants"] = {},
  rest: Partial<ModelFile> = {},
): DependentGraph => ({
  graph: {
    nodes,
    constants,
    inputs: { x: ["float32", ["n", width]] },
    outputs: { y: ["float32", ["m", width]] },
    ...rest,
  },
  inputs: usual,
});

const axis0 = { axes: [0], keepdims: 1 };
const zero = { zero: ints(0) };

const detector: DependentGraph = {
  graph: {
    nodes: [
      node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["chosen"]),
      node("Slice", ["chosen", "from", "to", "columns"], ["places"]),
      node("Transpose", ["boxes"], ["turned"], { perm: [0, 1, 2] }),
      node("Squeeze", ["places", "columns"], ["place"]),
      node("Reshape", ["turned", "flat"], ["all"]),
      node("Gather", ["all", "place"], ["y"], { axis: 0 }),
    ],
    constants: {
      ...{ most: ints(10), overlap: floats([1], [0.5]), least: floats([1], [0.4]), flat: ints(-1, 4) },
      ...{ from: ints(2), to: ints(3), columns: ints(1) },
    },
    inputs: { boxes: ["float32", ["n", 4, 4]], scores: ["float32", ["n", 1, 4]] },
    outputs: { y: ["float32", ["found", 4]] },
  },
  inputs: [1, 2, 3, 4].map((seed) => ({
    boxes: float32(
      [1, 4, 4],
      Array.from({ length: 16 }, (_, i) => (i % 4 < 2 ? seed * 10 + (i >> 2) * 20 : seed * 10 + (i >> 2) * 20 + 8)),
    ),
    scores: float32([1, 1, 4], [0.9, seed > 2 ? 0.1 : 0.6, seed > 1 ? 0.7 : 0.2, seed === 4 ? 0.95 : 0.3]),
  })),
};

const sequence = (dims: number[], seed: number): Feeds => ({
  x: float32(
    dims,
    Array.from({ length: dims.reduce((size, d) => size * d, 1) }, (_, i) => Math.sin(seed * 7 + i)),
  ),
});

const weights = (dims: number[], scale = 0.3) =>
  floats(
    dims,
    Array.from({ length: dims.reduce((size, d) => size * d, 1) }, (_, i) => scale * Math.cos(i * 1.7)),
  );

/** An LSTM or GRU over a tensor whose first dimension is time. */
const recurrent = (type: "LSTM" | "GRU", gates: number): DependentGraph => ({
  graph: {
    nodes: [node(type, ["x", "w", "r"], ["all"], { hidden_size: 2 }), node("Squeeze", ["all", "directions"], ["y"])],
    constants: { w: weights([1, gates * 2, width]), r: weights([1, gates * 2, 2]), directions: ints(1) },
    inputs: { x: ["float32", ["time", 1, width]] },
    outputs: { y: ["float32", ["time", 1, 2]] },
  },
  inputs: [1, 2, 3, 4].map((seed) => sequence([1, 1, width], seed)),
});

/** More than two dozen ways for a row to depend on other rows of its run. */
export const dependentGraphs: Record<string, DependentGraph> = {
  detector,
  "lstm-time-first": recurrent("LSTM", 4),
  "gru-time-first": recurrent("GRU", 3),
  "peak-normalisation": onRows(
    [
      node("Abs", ["x"], ["a"]),
      node("ReduceMax", ["a"], ["peak"], { keepdims: 0 }),
      node("Add", ["peak", "one"], ["p"]),
      node("Div", ["x", "p"], ["y"]),
    ],
    { one: floats([], [1]) },
  ),
  "batch-mean": onRows([node("ReduceMean", ["x"], ["m"], axis0), node("Sub", ["x", "m"], ["y"])]),
  "batch-max": onRows(
    [
      node("ReduceMax", ["x"], ["m"], { keepdims: 1 }),
      node("Max", ["m", "one"], ["mm"]),
      node("Div", ["x", "mm"], ["y"]),
    ],
    { one: floats([], [1]) },
  ),
  "dynamic-quantization": onRows([
    node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
    node("DequantizeLinear", ["q", "s", "z"], ["y"]),
  ]),
  "softmax-over-rows": onRows([node("Softmax", ["x"], ["y"], { axis: 0 })]),
  "old-softmax": onRows(
    [
      node("Unsqueeze", ["x"], ["u"], { axes: [0] }),
      node("Softmax", ["u"], ["s"], { axis: 1 }),
      node("Squeeze", ["s"], ["y"], { axes: [0] }),
    ],
    {},
    { opset: 11 },
  ),
  "cosine-bank": onRows(
    [
      node("ReduceL2", ["x"], ["l"], { keepdims: 0 }),
      node("Add", ["l", "one"], ["norm"]),
      node("Div", ["x", "norm"], ["y"]),
    ],
    { one: floats([], [1]) },
  ),
  "attention-over-rows": onRows([
    node("Transpose", ["x"], ["t"], { perm: [1, 0] }),
    node("MatMul", ["x", "t"], ["s"]),
    node("Softmax", ["s"], ["p"], { axis: 1 }),
    node("MatMul", ["p", "x"], ["y"]),
  ]),
  "time-first-output": {
    graph: {
      nodes: [node("Conv", ["x", "k"], ["c"]), node("Transpose", ["c"], ["y"], { perm: [2, 0, 1] })],
      constants: { k: floats([1, 1, 2], [1, -1]) },
      inputs: { x: ["float32", ["batch", 1, "samples"]] },
      outputs: { y: ["float32", ["time", "batch", 1]] },
    },
    inputs: [1, 2, 3, 4].map((seed) => sequence([1, 1, 2], seed)),
  },
  "dead-zone": onRows(
    [
      node("Abs", ["x"], ["a"]),
      node("ReduceMean", ["a"], ["m"], { keepdims: 0 }),
      node("Greater", ["a", "m"], ["far"]),
      node("Where", ["far", "x", "none"], ["y"]),
    ],
    { none: floats([], [0]) },
  ),
  "tiny-outputs": onRows(
    [node("Mul", ["x", "small"], ["s"]), node("ReduceMean", ["s"], ["m"], axis0), node("Sub", ["s", "m"], ["y"])],
    { small: floats([], [1e-9]) },
  ),
  "running-sum": onRows([node("CumSum", ["x", "axis"], ["y"])], { axis: { dtype: "int64", dims: [], data: [0] } }),
  "number-of-rows": onRows(
    [
      node("Shape", ["x"], ["shape"]),
      node("Gather", ["shape", "first"], ["count"], { axis: 0 }),
      node("Cast", ["count"], ["n"], { to: 1 }),
      node("Div", ["x", "n"], ["y"]),
    ],
    { first: { dtype: "int64", dims: [], data: [0] } },
  ),
  "position-in-run": onRows(
    [
      node("Shape", ["x"], ["shape"]),
      node("Gather", ["shape", "first"], ["count"], { axis: 0 }),
      node("Range", ["first", "count", "step"], ["places"]),
      node("Cast", ["places"], ["f"], { to: 1 }),
      node("Unsqueeze", ["f", "last"], ["column"]),
      node("Add", ["x", "column"], ["y"]),
    ],
    {
      first: { dtype: "int64", dims: [], data: [0] },
      step: { dtype: "int64", dims: [], data: [1] },
      last: ints(1),
    },
  ),
  "instance-norm-across-rows": onRows(
    [
      node("Unsqueeze", ["x", "zero"], ["u"]),
      node("Transpose", ["u"], ["t"], { perm: [0, 2, 1] }),
      node("InstanceNormalization", ["t", "s", "b"], ["i"]),
      node("Transpose", ["i"], ["back"], { perm: [0, 2, 1] }),
      node("Squeeze", ["back", "zero"], ["y"]),
    ],
    { ...zero, s: floats([3], [1, 1, 1]), b: floats([3], [0, 0, 0]) },
  ),
  "layer-norm-of-all": onRows([node("LayerNormalization", ["x", "s"], ["y"], { axis: 0 })], {
    s: floats([3], [1, 1, 1]),
  }),
  "lp-norm-over-rows": onRows([node("LpNormalization", ["x"], ["y"], { axis: 0, p: 2 })]),
  "mean-variance": onRows([node("MeanVarianceNormalization", ["x"], ["y"], { axes: [0] })]),
  "first-row": onRows([node("Gather", ["x", "zero"], ["f"], { axis: 0 }), node("Sub", ["x", "f"], ["y"])], zero),
  "largest-row": onRows(
    [
      node("ReduceSum", ["x", "last"], ["s"], { keepdims: 0 }),
      node("ArgMax", ["s"], ["i"], { axis: 0, keepdims: 1 }),
      node("Gather", ["x", "i"], ["f"], { axis: 0 }),
      node("Add", ["x", "f"], ["y"]),
    ],
    { last: ints(1) },
  ),
  "sorted-rows": onRows([node("TopK", ["x", "all"], ["y", "i"], { axis: 0 })], { all: ints(1) }),
  "one-row-only": onRows([
    node("Shape", ["x"], ["shape"]),
    node("Squeeze", ["x"], ["row"]),
    node("Reshape", ["row", "shape"], ["z"]),
    node("ReduceSum", ["z"], ["sum"], { keepdims: 0 }),
    node("Add", ["z", "sum"], ["y"]),
  ]),
  "rows-beside-a-table": onRows([node("Add", ["x", "table"], ["y"])], {
    table: floats([4, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
  }),
  "flattened-rows": onRows([
    node("Flatten", ["x"], ["f"], { axis: 0 }),
    node("ReduceMin", ["f"], ["m"], { keepdims: 0 }),
    node("Sub", ["x", "m"], ["y"]),
  ]),
  "only-the-positive": onRows(
    [
      node("NonZero", ["x"], ["places"]),
      node("Shape", ["places"], ["shape"]),
      node("Gather", ["shape", "second"], ["count"], { axis: 0 }),
      node("Cast", ["count"], ["n"], { to: 1 }),
      node("Mul", ["x", "n"], ["y"]),
    ],
    { second: { dtype: "int64", dims: [], data: [1] } },
  ),
  "two-branches": onRows(
    [
      node("ReduceSum", ["x"], ["s"], { keepdims: 0 }),
      node("Greater", ["s", "none"], ["above"]),
      node("If", ["above"], ["y"], {
        then_branch: {
          graph: { nodes: [node("Neg", ["x"], ["t"])], inputs: {}, outputs: { t: ["float32", ["m", 3]] } },
        },
        else_branch: {
          graph: { nodes: [node("Identity", ["x"], ["e"])], inputs: {}, outputs: { e: ["float32", ["m", 3]] } },
        },
      }),
    ],
    { none: floats([], [0]) },
  ),
  "own-function": onRows(
    [{ ...node("Centre", ["x"], ["y"], {}, "own") }],
    {},
    {
      opsets: { own: 1 },
      functions: [
        {
          ...{ domain: "own", name: "Centre", inputs: ["a"], outputs: ["b"] },
          nodes: [node("ReduceMean", ["a"], ["m"], axis0), node("Sub", ["a", "m"], ["b"])],
        },
      ],
    },
  ),
  "scaled-down-rows": onRows(
    [
      node("Unsqueeze", ["x", "front"], ["u"]),
      node("Resize", ["u", "", "scales"], ["r"], { mode: "linear" }),
      node("Squeeze", ["r", "front"], ["y"]),
    ],
    { front: ints(0, 1), scales: floats([4], [1, 1, 2, 1]) },
  ),
};

/** A model whose rows are independent, although its look-up throws for some inputs. */
export const throwingLookUp: DependentGraph = {
  graph: {
    nodes: [node("Gather", ["table", "id"], ["y"], { axis: 0 })],
    constants: { table: floats([4, 2], [1, 2, 3, 4, 5, 6, 7, 8]) },
    inputs: { id: ["int64", ["n"]] },
    outputs: { y: ["float32", ["n", 2]] },
  },
  inputs: [0, 1, 2, 3].map((id) => ({ id: int64([1], [id]) })),
};
