import type { Random } from "../../support/random.js";
import {
  anyAxis,
  type GraphBuilder,
  type GraphTensor,
  hasSqueezeWithoutAxes,
  mayHaveEmptyTensor,
  type Step,
} from "./graph-builder.js";

const withLength = (dims: readonly number[], axis: number, length: number): number[] =>
  dims.map((own, d) => (d === axis ? length : own));

const concat: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const { axis, written } = anyAxis(random, x.dims.length);
  const fits = ({ dims, dtype }: GraphTensor) =>
    dtype === "float32" && dims.length === x.dims.length && dims.every((n, d) => d === axis || n === x.dims[d]);
  const other = random.below(3) > 0 ? graph.pick(random, fits) : null;
  const length = other?.dims[axis] ?? random.pick([1, 2, 3]);
  const name = other?.name ?? graph.floats(random, withLength(x.dims, axis, length));
  const names = random.below(2) === 0 ? [x.name, name] : [name, x.name];
  const dims = withLength(x.dims, axis, (x.dims[axis] as number) + length);
  graph.add("Concat", names, { dtype: "float32", dims }, { axis: graph.opset >= 11 ? written : axis });
};

const split: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const { axis, written } = anyAxis(random, x.dims.length);
  const length = x.dims[axis] as number;
  if (length < 2) return;
  const at = graph.opset >= 11 ? written : axis;
  const made = (...lengths: number[]) =>
    lengths.map((own) => ({ dtype: "float32" as const, dims: withLength(x.dims, axis, own) }));
  const way = random.below(3);
  if (way === 0) {
    const lengths = [1, length - 1];
    if (graph.opset >= 13)
      graph.addMany("Split", [x.name, graph.ints(random, ...lengths)], made(...lengths), { axis: at });
    else graph.addMany("Split", [x.name], made(...lengths), { axis: at, split: lengths });
  } else if (way === 1 && length % 2 === 0) {
    graph.addMany("Split", [x.name], made(length / 2, length / 2), {
      axis: at,
      ...(graph.opset >= 18 && { num_outputs: 2 }),
    });
  } else if (way === 2 && graph.opset >= 18) {
    const half = Math.ceil(length / 2);
    graph.addMany("Split", [x.name], made(half, length - half), { axis: at, num_outputs: 2 });
  }
};

const slice: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const { axis, written } = anyAxis(random, x.dims.length);
  const length = x.dims[axis] as number;
  const start = random.below(3) > 0 ? 0 : random.below(length) - random.below(length + 1);
  const lengths = graph.list(random);
  const end = random.pick([length, length + 1, 2 ** 31 - 1, 2 ** 53, -1]);
  const step = random.below(4) === 0 && graph.opset >= 10 ? random.pick([2, 1, -1]) : 1;
  if (graph.opset < 10) {
    const taken = Array.from({ length }, (_, i) => i).slice(start, end).length;
    const made = { dtype: "float32", dims: withLength(x.dims, axis, taken) } as const;
    if (taken > 0) graph.add("Slice", [x.name], made, { starts: [start], ends: [end], axes: [axis] });
    return;
  }
  if (step < 0) {
    const inputs = [[-1], [-(2 ** 31)], [written], [step]].map((list) => graph.ints(random, ...list));
    graph.add("Slice", [x.name, ...inputs], { dtype: "float32", dims: x.dims });
    return;
  }
  const byList = lengths !== null && lengths.dims[0] === 1 && random.below(2) === 0;
  const last = byList ? (lengths.numbers?.[0] as number) : end;
  const taken = Array.from({ length }, (_, i) => i)
    .slice(start, last)
    .filter((_, i) => i % step === 0).length;
  if (taken === 0) return;
  const inputs = [
    graph.ints(random, start),
    byList ? lengths.name : graph.ints(random, end),
    graph.ints(random, written),
  ];
  if (step !== 1) inputs.push(graph.ints(random, step));
  graph.add("Slice", [x.name, ...inputs], { dtype: "float32", dims: withLength(x.dims, axis, taken) });
};

/** An int64 input of rows, if there is one. */
const ids = (graph: GraphBuilder, random: Random) =>
  graph.pick(random, ({ dtype, numbers }) => dtype === "int64" && numbers === undefined);

const gather: Step = (graph, random) => {
  const x = graph.float(random, 1);
  const way = random.below(3);
  const own = ids(graph, random);
  if (way === 0 && own !== null) {
    const width = random.pick([[3], [1, 2], []]);
    const table = graph.floats(random, [4, ...width]);
    graph.add("Gather", [table, own.name], { dtype: "float32", dims: [...own.dims, ...width] });
    return;
  }
  if (x === null) return;
  const { axis, written } = anyAxis(random, x.dims.length);
  if (way === 1 && own !== null) {
    const dims = [...x.dims.slice(0, axis), ...own.dims, ...x.dims.slice(axis + 1)];
    graph.add("Gather", [x.name, own.name], { dtype: "float32", dims }, { axis: written });
    return;
  }
  const index = () => random.below(x.dims[axis] as number) - (random.below(3) === 0 ? (x.dims[axis] as number) : 0);
  const scalar = random.below(2) === 0;
  const list = scalar ? [] : Array.from({ length: 1 + random.below(3) }, index);
  const name = scalar
    ? graph.scalar(random, graph.opset >= 11 ? index() : 0)
    : graph.ints(random, ...list.map(Math.abs));
  const dims = [...x.dims.slice(0, axis), ...(scalar ? [] : [list.length]), ...x.dims.slice(axis + 1)];
  graph.add("Gather", [x.name, name], { dtype: "float32", dims }, { axis: graph.opset >= 11 ? written : axis });
};

const gatherElements: Step = (graph, random) => {
  const x = graph.float(random, 1);
  const own = graph.pick(
    random,
    ({ dims, dtype, numbers }) => dtype === "int64" && numbers === undefined && dims.length === x?.dims.length,
  );
  if (x === null || own === null || graph.opset < 11) return;
  const { written } = anyAxis(random, x.dims.length);
  if (random.below(2) === 0) {
    graph.add("GatherElements", [x.name, own.name], { dtype: "float32", dims: own.dims }, { axis: written });
    return;
  }
  const updates = graph.add("Cast", [own.name], { dtype: "float32", dims: own.dims }, { to: 1 });
  const inputs = [x.name, own.name, updates.name];
  graph.add("ScatterElements", inputs, { dtype: "float32", dims: x.dims }, { axis: written });
};

const gatherNd: Step = (graph, random) => {
  const x = graph.float(random, 1);
  const own = ids(graph, random);
  if (x === null || own === null || graph.opset < 12 || own.dims.length < 1) return;
  const leading = random.below(Math.min(x.dims.length, own.dims.length));
  const depth = own.dims.at(-1) as number;
  if (leading + depth > x.dims.length) return;
  const dims = [...own.dims.slice(0, -1), ...x.dims.slice(leading + depth)];
  graph.add("GatherND", [x.name, own.name], { dtype: "float32", dims }, { batch_dims: leading });
};

const pad: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const { axis } = anyAxis(random, x.dims.length);
  const pads = new Array<number>(2 * x.dims.length).fill(0);
  pads[axis] = random.below(2);
  pads[axis + x.dims.length] = random.below(2);
  const length = (x.dims[axis] as number) + (pads[axis] as number) + (pads[axis + x.dims.length] as number);
  const value = { dtype: "float32", dims: withLength(x.dims, axis, length) } as const;
  const mode = random.pick(["constant", "edge", "reflect"]);
  if (graph.opset < 11) graph.add("Pad", [x.name], value, { pads, mode });
  else graph.add("Pad", [x.name, graph.ints(random, ...pads)], value, { mode });
};

const largest: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null || graph.opset < 11 || mayHaveEmptyTensor(graph)) return;
  const { axis, written } = anyAxis(random, x.dims.length);
  if (random.below(2) === 0) {
    const k = 1 + random.below(x.dims[axis] as number);
    const value = { dtype: "float32", dims: withLength(x.dims, axis, k) } as const;
    const inputs = [x.name, graph.ints(random, k)];
    graph.addMany("TopK", inputs, [value, { ...value, dtype: "int64" }], { axis: written });
    return;
  }
  const keeps = random.below(2);
  const dims = keeps === 1 ? withLength(x.dims, axis, 1) : x.dims.filter((_, d) => d !== axis);
  graph.add(random.pick(["ArgMax", "ArgMin"]), [x.name], { dtype: "int64", dims }, { axis: written, keepdims: keeps });
};

const oneHot: Step = (graph, random) => {
  const own = ids(graph, random);
  if (own === null || graph.opset < 11 || own.dims.length > 3) return;
  const axis = random.below(own.dims.length + 1);
  const dims = [...own.dims.slice(0, axis), 4, ...own.dims.slice(axis)];
  const values = graph.tensor(random, { dtype: "float32", dims: [2], data: [-0.5, 2] });
  graph.add(
    "OneHot",
    [own.name, graph.scalar(random, 4), values],
    { dtype: "float32", dims },
    {
      axis: random.below(2) === 0 ? axis : axis - dims.length,
    },
  );
};

const triangle: Step = (graph, random) => {
  const x = graph.float(random, 2);
  if (x === null || graph.opset < 14) return;
  graph.add("Trilu", [x.name], { dtype: "float32", dims: x.dims }, { upper: random.below(2) });
};

const reverseSequence: Step = (graph, random) => {
  const x = graph.float(random, 2);
  if (x === null || graph.opset < 10 || hasSqueezeWithoutAxes(graph) || mayHaveEmptyTensor(graph)) return;
  const along = random.below(2);
  const count = x.dims[along] as number;
  const other = x.dims[1 - along] as number;
  const lengths = graph.pick(random, (v) => v.dtype === "int64" && v.dims.length === 1 && v.dims[0] === count);
  const name = lengths?.name ?? graph.ints(random, ...Array.from({ length: count }, () => 1 + random.below(other)));
  graph.add(
    "ReverseSequence",
    [x.name, name],
    { dtype: "float32", dims: x.dims },
    {
      batch_axis: along,
      time_axis: 1 - along,
    },
  );
};

const compress: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null || graph.opset < 9) return;
  const { axis } = anyAxis(random, x.dims.length);
  const length = x.dims[axis] as number;
  const mask = graph.tensor(random, {
    dtype: "bool",
    dims: [length],
    data: Array.from({ length }, (_, i) => (i === 0 ? 1 : 0)),
  });
  graph.add("Compress", [x.name, mask], { dtype: "float32", dims: withLength(x.dims, axis, 1) }, { axis });
};

/** Operators that pick, order or place elements. */
export const selectSteps: readonly Step[] = [
  concat,
  concat,
  split,
  slice,
  slice,
  gather,
  gather,
  gather,
  gatherElements,
  gatherNd,
  pad,
  largest,
  oneHot,
  triangle,
  reverseSequence,
  compress,
];
