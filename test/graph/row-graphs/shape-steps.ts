import type { Random } from "../../support/random.js";
import { broadcastDims, type GraphBuilder, type GraphTensor, type Step, sizeOfDims } from "./graph-builder.js";

const mostElements = 2000;

/** The shape of a tensor, or a part of it, as a list. */
const shape: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const all = { dtype: "int64", dims: [x.dims.length], numbers: x.dims } as const;
  const list = graph.add("Shape", [x.name], all);
  if (random.below(3) === 0) return;
  const picked = x.dims.map((_, d) => d).filter(() => random.below(2) === 0);
  if (picked.length === 0) picked.push(0);
  if (random.below(3) > 0) pickLengths(graph, random, list, picked);
  else sliceLengths(graph, random, list);
};

function pickLengths(graph: GraphBuilder, random: Random, list: GraphTensor, picked: readonly number[]): GraphTensor {
  const numbers = picked.map((i) => list.numbers?.[i] as number);
  const written = picked.map((i) => (graph.opset >= 11 && random.below(4) === 0 ? i - (list.dims[0] as number) : i));
  return graph.add("Gather", [list.name, graph.ints(random, ...written)], {
    dtype: "int64",
    dims: [numbers.length],
    numbers,
  });
}

function sliceLengths(graph: GraphBuilder, random: Random, list: GraphTensor): void {
  const length = list.dims[0] as number;
  const start = random.below(length + 1) - random.below(length + 1);
  const end = random.pick([length, 2 ** 31 - 1, -1, start + 1]);
  const numbers = (list.numbers as number[]).slice(start, end);
  const made = { dtype: "int64", dims: [numbers.length], numbers } as const;
  if (graph.opset < 10) graph.add("Slice", [list.name], made, { starts: [start], ends: [end] });
  else graph.add("Slice", [list.name, graph.ints(random, start), graph.ints(random, end)], made);
}

/** Arithmetic on lists of lengths. */
const arithmetic: Step = (graph, random) => {
  const a = graph.list(random);
  if (a === null) return;
  const numbers = a.numbers as number[];
  const other = random.below(2) === 0 ? graph.list(random) : null;
  const b = other !== null && other.dims[0] === a.dims[0] ? other : null;
  const second = b?.numbers ?? numbers.map(() => random.pick([1, 1, 2, 3, 4, 0, -1, graph.rows]));
  const type = random.pick(["Add", "Sub", "Mul", "Mul", "Div", "Neg", "ReduceProd", "Cast", "Equal"]);
  const list = (made: readonly number[]) => ({ dtype: "int64", dims: [made.length], numbers: made }) as const;
  if (type === "Neg") graph.add(type, [a.name], list(numbers.map((n) => -n)));
  else if (type === "ReduceProd") {
    if (random.below(4) === 0 && graph.opset >= 18)
      graph.add(type, [a.name], list(numbers), { noop_with_empty_axes: 1 });
    else graph.add(type, [a.name], list([sizeOfDims(numbers)]), { keepdims: 1 });
  } else if (type === "Cast") {
    const [to, dtype] = random.pick([
      [9, "bool"],
      [1, "float32"],
      [6, "int32"],
      [3, "int8"],
    ] as const);
    const cast = graph.add("Cast", [a.name], { dtype, dims: a.dims }, { to });
    graph.add("Cast", [cast.name], list(dtype === "bool" ? numbers.map((n) => (n === 0 ? 0 : 1)) : numbers), { to: 7 });
  } else if (type === "Equal") {
    const wanted = graph.ints(random, ...(b === null ? numbers.map(() => random.pick([-1, 1, 2])) : second));
    const condition = graph.add(type, [a.name, wanted], { dtype: "bool", dims: a.dims });
    if (graph.opset < 9) return;
    const ones = graph.ints(random, ...numbers.map(() => 1));
    const chosen = numbers.map((n) => n);
    graph.add("Where", [condition.name, ones, a.name], list(chosen));
  } else {
    if (type === "Div" && second.includes(0)) return;
    const does = { Add: (x: number, y: number) => x + y, Sub: (x: number, y: number) => x - y }[type];
    const made = numbers.map((n, i) => {
      const m = second[i] as number;
      return does?.(n, m) ?? (type === "Mul" ? n * m : Math.trunc(n / m));
    });
    graph.add(type, [a.name, b?.name ?? graph.ints(random, ...second)], list(made));
  }
};

/** Concatenates lists, with numbers in between. */
const joinLists: Step = (graph, random) => {
  const parts = Array.from({ length: 1 + random.below(3) }, () => graph.list(random)).filter((list) => list !== null);
  const numbers = parts.flatMap((part) => part.numbers as number[]);
  const names = parts.map((part) => part.name);
  if (random.below(2) === 0) {
    const own = [random.pick([-1, 1, 2, 3, 0])];
    if (random.below(2) === 0) {
      names.unshift(graph.ints(random, ...own));
      numbers.unshift(...own);
    } else {
      names.push(graph.ints(random, ...own));
      numbers.push(...own);
    }
  }
  if (names.length === 0) return;
  graph.add("Concat", names, { dtype: "int64", dims: [numbers.length], numbers }, { axis: 0 });
};

/** The dimensions of `x` after a Reshape to this shape; null if it does not fit. */
function shapeFor(x: GraphTensor, written: readonly number[]): number[] | null {
  const dims = written.map((n, d) => (n === 0 ? (x.dims[d] ?? 0) : n));
  const rest = dims.filter((n) => n !== -1).reduce((size, n) => size * n, 1);
  const open = dims.indexOf(-1);
  const total = sizeOfDims(x.dims);
  if (open >= 0) {
    if (rest <= 0 || total % rest !== 0 || dims.lastIndexOf(-1) !== open) return null;
    dims[open] = total / rest;
  }
  return dims.every((n) => n > 0) && sizeOfDims(dims) === total ? dims : null;
}

const reshapeByList: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const list = graph.pick(random, ({ numbers }) => numbers !== undefined && shapeFor(x, numbers) !== null);
  const dims = list === null ? null : shapeFor(x, list.numbers as number[]);
  if (list !== null && dims !== null) graph.add("Reshape", [x.name, list.name], { dtype: "float32", dims });
};

/** Merges or splits adjacent dimensions, given as numbers, as 0 (keep) or as -1 (the rest). */
const reshape: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const dims = [...x.dims];
  for (let n = 0; n < 1 + random.below(2); n++) {
    const d = random.below(dims.length);
    const length = dims[d] as number;
    const parts = [2, 3, 4].filter((part) => part < length && length % part === 0);
    const way = random.below(4);
    if (way === 0 && d + 1 < dims.length) dims.splice(d, 2, length * (dims[d + 1] as number));
    else if (way === 1 && parts.length > 0) {
      const part = random.pick(parts);
      dims.splice(d, 1, ...(random.below(2) === 0 ? [part, length / part] : [length / part, part]));
    } else if (way === 2) dims.splice(d, 0, 1);
    else if (length === 1 && dims.length > 1) dims.splice(d, 1);
  }
  const written = dims.map((length, d) => (length === x.dims[d] && random.below(2) === 0 ? 0 : length));
  if (random.below(3) > 0) written[random.below(written.length)] = -1;
  if (shapeFor(x, written) === null) return;
  graph.add("Reshape", [x.name, graph.ints(random, ...written)], { dtype: "float32", dims });
};

/** Reshapes by lengths of the run, like exported models, with at most one -1. */
const reshapeByLengths: Step = (graph, random) => {
  const [x, from] = [graph.float(random, 2), graph.float(random, 1)];
  if (x === null || from === null) return;
  const list = graph.add("Shape", [from.name], { dtype: "int64", dims: [from.dims.length], numbers: from.dims });
  const at = random.below(from.dims.length);
  const own = pickLengths(graph, random, list, [at]);
  const [length, total] = [from.dims[at] as number, sizeOfDims(x.dims)];
  if (total % length !== 0) return;
  const shapes = [
    [own, [-1]],
    [[-1], own],
    [[1], own, [-1]],
    [[-1], own, [1]],
    [own, [-1], [random.pick([1, 2, 3])]],
    [own, [random.pick([1, 2, 3])], [-1]],
    [[random.pick([1, 2, 3])], own, [-1]],
    [[0], own, [-1]],
  ] as const;
  const parts = random.pick<readonly (GraphTensor | readonly number[])[]>(shapes);
  const numbers = parts.flatMap((part) => ("name" in part ? (part.numbers as number[]) : [...part]));
  const dims = shapeFor(x, numbers);
  if (dims === null) return;
  const names = parts.map((part) => ("name" in part ? part.name : graph.ints(random, ...part)));
  const made = graph.add("Concat", names, { dtype: "int64", dims: [numbers.length], numbers }, { axis: 0 });
  graph.add("Reshape", [x.name, made.name], { dtype: "float32", dims });
};

const expand: Step = (graph, random) => {
  const list = graph.pick(
    random,
    ({ numbers }) => numbers?.every((n) => n > 0) === true && sizeOfDims(numbers) < mostElements,
  );
  if (list === null || graph.opset < 9) return;
  const lengths = list.numbers as number[];
  const way = random.below(3);
  if (way === 0) {
    const filled = { dtype: "float32", dims: [1], data: [random.pick([0, 1, 2.5])] } as const;
    graph.add("ConstantOfShape", [list.name], { dtype: "float32", dims: lengths }, { value: { tensor: filled } });
    return;
  }
  const x = way === 1 ? graph.float(random, 0) : null;
  const dims = x?.dims ?? lengths.map((length) => (random.below(2) === 0 ? 1 : length));
  const made = broadcastDims(dims, lengths);
  if (made === null || sizeOfDims(made) > mostElements) return;
  graph.add("Expand", [x?.name ?? graph.floats(random, dims), list.name], { dtype: "float32", dims: made });
};

const tile: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const list = graph.pick(random, (v) => v.numbers?.length === x.dims.length && v.numbers.every((n) => n > 0));
  const repeats =
    random.below(2) === 0 && list !== null ? (list.numbers as number[]) : x.dims.map(() => 1 + random.below(2));
  const dims = x.dims.map((length, d) => length * (repeats[d] as number));
  if (sizeOfDims(dims) > mostElements) return;
  const own = random.below(2) === 0 || list === null || repeats !== list.numbers;
  if (own) graph.add("Tile", [x.name, graph.ints(random, ...repeats)], { dtype: "float32", dims });
  else graph.add("Tile", [x.name, list.name], { dtype: "float32", dims });
};

const transpose: Step = (graph, random) => {
  const x = graph.float(random, 2);
  if (x === null) return;
  const left = x.dims.map((_, d) => d);
  const perm: number[] = [];
  while (left.length > 0) perm.push(...left.splice(random.below(left.length), 1));
  const preset = random.below(3) === 0;
  const order = preset ? x.dims.map((_, d) => x.dims.length - 1 - d) : perm;
  const dims = order.map((d) => x.dims[d] as number);
  graph.add("Transpose", [x.name], { dtype: "float32", dims }, preset ? {} : { perm });
};

const flatten: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const axis = random.below(x.dims.length + 1);
  const dims = [sizeOfDims(x.dims.slice(0, axis)), sizeOfDims(x.dims.slice(axis))];
  graph.add("Flatten", [x.name], { dtype: "float32", dims }, { axis });
};

const squeeze: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const ones = x.dims.map((_, d) => d).filter((d) => x.dims[d] === 1);
  if (random.below(4) === 0) {
    graph.add("Squeeze", [x.name], { dtype: "float32", dims: x.dims.filter((length) => length !== 1) });
    return;
  }
  if (ones.length === 0) return;
  const axes = random.below(2) === 0 ? ones : [random.pick(ones)];
  const { attributes, inputs } = graph.axes(random, axes, 13);
  const dims = x.dims.filter((_, d) => !axes.includes(d));
  graph.add("Squeeze", [x.name, ...inputs], { dtype: "float32", dims }, attributes);
};

const unsqueeze: Step = (graph, random) => {
  const x = graph.float(random, 0, 4);
  if (x === null) return;
  const axis = random.below(x.dims.length + 1);
  const dims = [...x.dims.slice(0, axis), 1, ...x.dims.slice(axis)];
  const written = graph.opset >= 11 && random.below(2) === 0 ? axis - dims.length : axis;
  const { attributes, inputs } = graph.axes(random, [written], 13);
  graph.add("Unsqueeze", [x.name, ...inputs], { dtype: "float32", dims }, attributes);
};

/** Operators that move elements, and the lists of lengths that they take. */
export const shapeSteps: readonly Step[] = [
  shape,
  shape,
  arithmetic,
  arithmetic,
  joinLists,
  reshapeByList,
  reshapeByList,
  reshape,
  reshape,
  reshapeByLengths,
  reshapeByLengths,
  expand,
  tile,
  transpose,
  transpose,
  flatten,
  squeeze,
  unsqueeze,
];
