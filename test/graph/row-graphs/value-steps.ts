import type { Random } from "../../support/random.js";
import { anyAxis, broadcastDims, type Step } from "./graph-builder.js";

const unaryTypes = "Relu Sigmoid Tanh Exp Abs Neg LeakyRelu Elu Softsign Softplus Identity Sqrt Selu".split(" ");

const unary: Step = (graph, random) => {
  const x = graph.float(random, 0);
  if (x !== null) graph.add(random.pick(unaryTypes), [x.name], { dtype: "float32", dims: x.dims });
};

/** Dimensions for a broadcast against `dims`: fewer, with ones, or with lengths that mostly do not fit. */
function broadcastableDims(random: Random, dims: readonly number[]): number[] {
  const beside = dims.slice(random.below(3) === 0 ? random.below(dims.length + 1) : 0);
  const made = beside.map((length) => (random.below(2) === 0 ? 1 : length));
  if (random.below(8) === 0) made[0] = random.pick([2, 3]);
  return random.below(10) === 0 ? [random.pick([1, 2]), ...made] : made;
}

const binary: Step = (graph, random) => {
  const x = graph.float(random, 0);
  if (x === null) return;
  const other = random.below(2) === 0 ? graph.float(random, 0) : null;
  const dims = other?.dims ?? broadcastableDims(random, x.dims);
  const made = broadcastDims(x.dims, dims);
  if (made === null) return;
  const name = other?.name ?? graph.floats(random, dims);
  const inputs = random.below(2) === 0 ? [x.name, name] : [name, x.name];
  graph.add(random.pick(["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"]), inputs, { dtype: "float32", dims: made });
};

/** A Where on a comparison. */
const choose: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null || graph.opset < 9) return;
  const beside = broadcastableDims(random, x.dims);
  const dims = broadcastDims(x.dims, beside);
  if (dims === null) return;
  const condition = graph.add(random.pick(["Greater", "Less"]), [x.name, graph.floats(random, beside)], {
    dtype: "bool",
    dims,
  });
  const other = graph.float(random, 1);
  const whole = other === null ? null : broadcastDims(dims, other.dims);
  const [name, all] =
    other === null || whole === null ? [graph.scalar(random, -3, "float32"), dims] : [other.name, whole];
  graph.add("Where", [condition.name, x.name, name], { dtype: "float32", dims: all });
};

const clip: Step = (graph, random) => {
  const x = graph.float(random, 0);
  if (x === null) return;
  const value = { dtype: "float32", dims: x.dims } as const;
  if (graph.opset < 11) graph.add("Clip", [x.name], value, { min: { float: -0.5 }, max: { float: 0.5 } });
  else graph.add("Clip", [x.name, graph.scalar(random, -0.5, "float32"), ""], value);
};

const dropout: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const value = { dtype: "float32", dims: x.dims } as const;
  if (graph.opset < 12) graph.add("Dropout", [x.name], value, { ratio: { float: 0.5 } });
  else graph.add("Dropout", [x.name, graph.scalar(random, 0.5, "float32")], value);
};

/** One scale for all elements: ONNX Runtime's optimiser crashes on scales along an axis before a Transpose. */
const quantize: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null || graph.opset < 13) return;
  const scale = graph.scalar(random, 0.02, "float32");
  const small = graph.add("QuantizeLinear", [x.name, scale], { dtype: "uint8", dims: x.dims });
  graph.add("DequantizeLinear", [small.name, scale], { dtype: "float32", dims: x.dims });
};

const softmax: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const { axis, written } = anyAxis(random, x.dims.length);
  const type = random.pick(["Softmax", "LogSoftmax", "Softmax", "LpNormalization"]);
  const value = { dtype: "float32", dims: x.dims } as const;
  const preset = random.below(4) === 0;
  graph.add(type, [x.name], value, preset ? {} : { axis: graph.opset < 11 ? axis : written });
};

const layerNormalization: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null || graph.opset < 17) return;
  const { axis, written } = anyAxis(random, x.dims.length);
  const rest = x.dims.slice(axis);
  const beside = random.below(4) === 0 ? broadcastableDims(random, x.dims) : rest;
  const inputs = [x.name, graph.floats(random, beside), ...(random.below(2) === 0 ? [graph.floats(random, rest)] : [])];
  graph.add("LayerNormalization", inputs, { dtype: "float32", dims: x.dims }, { axis: written });
};

const batchNormalization: Step = (graph, random) => {
  const x = graph.float(random, 2);
  if (x === null) return;
  const channels = [x.dims[1] as number];
  const inputs = [
    x.name,
    ...[0, 1, 2].map(() => graph.floats(random, channels)),
    graph.floats(random, channels, 0.5, 2),
  ];
  graph.add("BatchNormalization", inputs, { dtype: "float32", dims: x.dims });
};

const otherNormalizations: Step = (graph, random) => {
  const x = graph.float(random, 3);
  if (x === null) return;
  const value = { dtype: "float32", dims: x.dims } as const;
  const channels = [x.dims[1] as number];
  const type = random.pick(["InstanceNormalization", "LRN", "MeanVarianceNormalization", "GroupNormalization"]);
  if (type === "InstanceNormalization") {
    graph.add(type, [x.name, graph.floats(random, channels), graph.floats(random, channels)], value);
  } else if (type === "LRN" && x.dims.length === 4) graph.add(type, [x.name], value, { size: 3 });
  else if (type === "MeanVarianceNormalization" && graph.opset >= 9) {
    const axes = x.dims.map((_, d) => d).filter(() => random.below(2) === 0);
    graph.add(type, [x.name], value, axes.length === 0 ? {} : { axes });
  } else if (type === "GroupNormalization" && graph.opset >= 21) {
    graph.add(type, [x.name, graph.floats(random, channels), graph.floats(random, channels)], value, { num_groups: 1 });
  }
};

const reductions =
  "ReduceSum ReduceSum ReduceMean ReduceMean ReduceMax ReduceMin ReduceL2 ReduceProd ReduceSumSquare".split(" ");

const reduce: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const type = random.pick(reductions);
  const since = type === "ReduceSum" ? 13 : 18;
  const axes = x.dims.map((_, d) => d).filter(() => random.below(5) < 2);
  const keeps = random.below(2) === 0;
  const noop = graph.opset >= since && random.below(6) === 0;
  const all = axes.length === 0 && !noop ? x.dims.map((_, d) => d) : axes;
  const negative = graph.opset >= 11 && random.below(3) === 0;
  const written = axes.map((axis) => (negative ? axis - x.dims.length : axis));
  const { attributes, inputs } =
    axes.length === 0 ? { attributes: {}, inputs: [] } : graph.axes(random, written, since);
  const dims = x.dims.flatMap((length, d) => (all.includes(d) ? (keeps ? [1] : []) : [length]));
  graph.add(
    type,
    [x.name, ...inputs],
    { dtype: "float32", dims },
    {
      keepdims: keeps ? 1 : 0,
      ...(noop && { noop_with_empty_axes: 1 }),
      ...attributes,
    },
  );
};

const cumulate: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null || graph.opset < 11) return;
  const { written } = anyAxis(random, x.dims.length);
  graph.add(
    "CumSum",
    [x.name, graph.scalar(random, written)],
    { dtype: "float32", dims: x.dims },
    {
      reverse: random.below(2),
    },
  );
};

/** Element-wise operators, and reductions and normalisations along axes. */
export const valueSteps: readonly Step[] = [
  unary,
  binary,
  binary,
  binary,
  choose,
  clip,
  dropout,
  quantize,
  softmax,
  softmax,
  layerNormalization,
  batchNormalization,
  otherNormalizations,
  reduce,
  reduce,
  cumulate,
];
