import {
  axesOf,
  expectFixed,
  expectNotAlong,
  fixed,
  fromStart,
  has,
  type Rule,
  rows,
  type Shaped,
  shaped,
  shapedLengths,
  UnprovenError,
} from "./abstract-tensor.js";
import { isModest, one, product, type Size, sameSize } from "./sizes.js";

/** Reduces the entries along some axes to one value. */
const reduce: Rule = (operation) => {
  if (operation.type === "ReduceProd") {
    const data = shapedLengths(operation, 0);
    const axes = axesOf(operation, 1, data.dims.length) ?? [];
    const stays = axes.length === 0 && operation.int("noop_with_empty_axes", 0) !== 0;
    if (data.kind === "fixed" && data.elements !== null && !stays) {
      const kept = operation.int("keepdims", 1) === 0 ? [] : data.dims.map(() => one);
      const whole = product(data.elements);
      if (!isModest(whole)) throw new UnprovenError("it makes a number that may overflow");
      return fixed(kept, [whole]);
    }
  }
  const data = shaped(operation, 0);
  const said = axesOf(operation, 1, data.dims.length);
  const none = said === null || said.length === 0;
  if (none && operation.int("noop_with_empty_axes", 0) !== 0) return data.kind === "fixed" ? fixed(data.dims) : data;
  const axes = none ? data.dims.map((_, d) => d) : said;
  expectNotAlong(data, axes, "sums or compares along");
  const keeps = operation.int("keepdims", 1) !== 0;
  const dims = data.dims.flatMap((length, d) => (axes.includes(d) ? (keeps ? [one] : []) : [length]));
  if (data.kind === "fixed") return fixed(dims);
  return rows(dims, keeps ? data.axis : data.axis - axes.filter((axis) => axis < data.axis).length);
};

const unchanged = (data: Shaped) => (data.kind === "fixed" ? fixed(data.dims) : data);

/** Normalises along one axis; before version 13 along all axes from that one on. */
const softmax: Rule = (operation) => {
  const data = shaped(operation, 0);
  const axis = fromStart(operation.int("axis", operation.opset < 13 ? 1 : -1), data.dims.length);
  const axes = operation.opset < 13 ? data.dims.map((_, d) => d).filter((d) => d >= axis) : [axis];
  expectNotAlong(data, axes, "takes shares along");
  return unchanged(data);
};

/** Mean and deviation, or a norm, over all axes from one on. */
const layerNormalization: Rule = (operation) => {
  const data = shaped(operation, 0);
  expectFixed(operation, 1, 2);
  const axis = fromStart(operation.int("axis", -1), data.dims.length);
  const axes = data.dims.map((_, d) => d).filter((d) => d >= axis);
  expectNotAlong(data, axes, "normalises along");
  for (const i of [1, 2]) {
    if (has(operation, i) && shaped(operation, i).dims.length > axes.length) {
      throw new UnprovenError("its scale has more dimensions than it normalises");
    }
  }
  const dims = data.dims.map((length, d) => (d < axis ? length : one));
  const statistics = data.kind === "fixed" ? fixed(dims) : rows(dims, data.axis);
  return [unchanged(data), statistics, statistics];
};

const lpNormalization: Rule = (operation) => {
  const data = shaped(operation, 0);
  expectNotAlong(data, [fromStart(operation.int("axis", -1), data.dims.length)], "normalises along");
  return unchanged(data);
};

/** Statistics for each entry of the first axis, over the axes after the second or over groups of channels. */
const ofEachFirst: Rule = (operation) => {
  const data = shaped(operation, 0);
  expectFixed(operation, 1, 2);
  if (data.kind === "rows" && data.axis !== 0) throw new UnprovenError("its rows do not lie along the first axis");
  return unchanged(data);
};

const meanVariance: Rule = (operation) => {
  const data = shaped(operation, 0);
  const axes = (operation.numbers("axes") ?? [0, 2, 3]).map((axis) => fromStart(axis, data.dims.length));
  expectNotAlong(data, axes, "normalises along");
  return unchanged(data);
};

/** Uses the fixed statistics of the training; in training mode it uses those of the run. */
const batchNormalization: Rule = (operation) => {
  const data = shaped(operation, 0);
  const trains =
    operation.opset >= 14
      ? operation.int("training_mode", 0) !== 0
      : operation.opset < 7
        ? operation.int("is_test", 0) === 0
        : operation.outputs > 1;
  if (trains) throw new UnprovenError("it normalises by the statistics of the run");
  if (operation.int("spatial", 1) === 0) throw new UnprovenError("it has statistics for each position");
  expectFixed(operation, 1, 2, 3, 4);
  if (data.kind === "rows" && data.axis === 1) throw new UnprovenError("its rows lie along the channel axis");
  return unchanged(data);
};

/** Carries a state along the first axis, so rows must lie along the second. */
const recurrent: Rule = (operation) => {
  const data = shaped(operation, 0);
  const [batch, layout] = operation.int("layout", 0) === 0 ? [1, 0] : [0, 1];
  const initial = operation.type === "LSTM" ? [5, 6] : [5];
  expectFixed(operation, 1, 2, 3, ...(operation.type === "LSTM" ? [7] : []));
  if (data.kind === "fixed") {
    if (operation.inputs.some((value) => value?.kind === "rows"))
      throw new UnprovenError("its state has rows, but its input has none");
    return new Array(operation.outputs).fill(fixed(null));
  }
  if (data.axis !== batch) throw new UnprovenError("it carries a state along the row axis");
  if (data.dims.length !== 3) throw new UnprovenError("its input does not have three dimensions");
  if (has(operation, 4)) expectRows(shaped(operation, 4), 0, data);
  for (const i of initial) if (has(operation, i)) expectRows(shaped(operation, i), layout === 0 ? 1 : 0, data);
  const [count, steps] = [data.dims[batch], data.dims[layout === 0 ? 0 : 1]];
  if (count === undefined || steps === undefined) throw new UnprovenError("its input does not have three dimensions");
  const directions = operation.text("direction", "forward") === "bidirectional" ? { factor: 2, symbols: [] } : one;
  const width = operation.newLength();
  const all = layout === 0 ? rows([steps, directions, count, width], 2) : rows([count, steps, directions, width], 0);
  const last = layout === 0 ? rows([directions, count, width], 1) : rows([count, directions, width], 0);
  return [all, last, last].slice(0, Math.max(1, operation.outputs));
};

/** Throws unless `value` has one entry along `axis` for each row of `data`. */
function expectRows(value: Shaped, axis: number, data: Shaped & { kind: "rows" }): void {
  const alike =
    value.kind === "rows" && value.axis === axis && sameSize(value.dims[axis] as Size, data.dims[data.axis] as Size);
  if (!alike) throw new UnprovenError("its state or its lengths are not one entry a row");
}

const names = (list: string, rule: Rule): [string, Rule][] => list.split(" ").map((name) => [name, rule]);

/** Operators that combine the entries along some axes. */
export const reduceRules: Record<string, Rule> = Object.fromEntries([
  ...names(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum " +
      "ReduceSumSquare",
    reduce,
  ),
  ...names("Softmax LogSoftmax Hardmax", softmax),
  ...names("LayerNormalization RMSNormalization", layerNormalization),
  ...names("InstanceNormalization GroupNormalization LRN", ofEachFirst),
  ...names("LSTM GRU RNN", recurrent),
  ["LpNormalization", lpNormalization],
  ["MeanVarianceNormalization", meanVariance],
  ["BatchNormalization", batchNormalization],
]);
