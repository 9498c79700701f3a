import {
  axesOf,
  broadcast,
  expectFixed,
  expectNotAlong,
  type Fixed,
  fixed,
  fromStart,
  has,
  input,
  isSteady,
  lengthsAt,
  newDims,
  numbersOf,
  type Operation,
  type Rows,
  type Rule,
  rows,
  type Shaped,
  shaped,
  shapedLengths,
  UnprovenError,
  withDims,
} from "./abstract-tensor.js";
import {
  dependsOnRows,
  dividedBy,
  isNeverNegative,
  isOne,
  mayBeZero,
  numberIn,
  one,
  product,
  type Size,
  sameSize,
  sizeOf,
  times,
} from "./sizes.js";

/** Tensors of at most this many elements keep them, since they may be lengths. */
const mostElements = 64;

/** The dimensions, as a list; those of a tensor of rows depend on the number of rows. */
const shape: Rule = (operation) => {
  const { dims } = shapedLengths(operation, 0);
  const [start, end] = [operation.int("start", 0), operation.int("end", dims.length)];
  const part = dims.slice(start, end);
  return fixed([sizeOf(part.length)], part);
};

const size: Rule = (operation) => fixed([], [product(shapedLengths(operation, 0).dims)]);

const constant: Rule = (operation) => {
  const value = operation.constant("value");
  if (value !== null) return value;
  const list = operation.numbers("value_ints") ?? operation.numbers("value_floats");
  if (list !== null) return fixed([sizeOf(list.length)], list.length > mostElements ? null : list.map(sizeOf));
  const single = operation.int("value_int", Number.NaN);
  return Number.isNaN(single) ? fixed(null) : fixed([], [sizeOf(single)]);
};

/** One value in a shape given as a list. If the list names the number of rows, each row has that value. */
const constantOfShape: Rule = (operation) => {
  const lengths = lengthsOf(operation, 0);
  if (lengths === null) return fixed(null);
  const axis = lengths.findIndex(dependsOnRows);
  if (axis >= 0) return rows(lengths, axis);
  const count = numberIn(product(lengths));
  const filled = operation.constant("value");
  const value = filled === null ? sizeOf(0) : (filled.elements?.[0] ?? null);
  const keeps = lengths.length <= 1 && count !== null && count <= mostElements && value !== null;
  return fixed(lengths, keeps ? new Array<Size>(count).fill(value) : null);
};

/** The elements of a list of lengths; null where they are unknown but fixed. */
function lengthsOf(operation: Operation, i: number): readonly Size[] | null {
  const value = lengthsAt(operation, i);
  if (value.kind === "rows") throw new UnprovenError("it makes a shape from numbers of the rows");
  return value.elements;
}

/** A range of numbers. One up to the number of rows would tell each row its place. */
const range: Rule = (operation) => {
  expectFixed(operation, 0, 1, 2);
  const [start, limit, step] = [0, 1, 2].map((i) => {
    const [only] = (operation.inputs[i] as Fixed).elements ?? [];
    return only === undefined ? null : numberIn(only);
  });
  const [last] = (operation.inputs[1] as Fixed).elements ?? [];
  if (start === 0 && step === 1 && last !== undefined && isNeverNegative(last) && limit === null) return fixed([last]);
  const isWhole = [start, limit, step].every((number) => number != null && Number.isInteger(number));
  if (start == null || limit == null || step == null || step === 0 || !isWhole) return fixed(newDims(operation, 1));
  const count = Math.max(0, Math.ceil((limit - start) / step));
  const elements = Array.from({ length: Math.min(count, mostElements + 1) }, (_, i) => sizeOf(start + i * step));
  return fixed([sizeOf(count)], count > mostElements ? null : elements);
};

const reshape: Rule = (operation) => {
  const data = shapedLengths(operation, 0);
  const said = operation.opset < 5 ? operation.numbers("shape")?.map(sizeOf) : lengthsOf(operation, 1);
  if (said == null) {
    if (data.kind === "rows") throw new UnprovenError("its output shape is not known");
    const rank = (input(operation, 1) as Fixed).dims?.[0];
    const known = rank === undefined ? null : numberIn(rank);
    return fixed(known === null ? null : newDims(operation, known));
  }
  const copies = operation.int("allowzero", 0) === 0;
  // A number that may be -1 or 0 is not a clear length: `Reshape` reads -1 as the remaining length and 0 as the input's
  // length.
  const isClear = (length: Size, d: number) =>
    numberIn(length) !== null ||
    (isNeverNegative(length) && !(copies && mayBeZero(length) && !sameSize(length, data.dims[d] ?? length)));
  if (!said.every(isClear)) {
    if (data.kind === "rows") throw new UnprovenError("its output shape may hold a 0 or a -1");
    input(operation, 0);
    return fixed(newDims(operation, said.length));
  }
  return reshaped(
    operation,
    data,
    said.map((length, d) => (copies && numberIn(length) === 0 ? (data.dims[d] ?? length) : length)),
  );
};

/** Merges the dimensions before an axis into one, and those from it on into another. */
const flatten: Rule = (operation) => {
  const data = shapedLengths(operation, 0);
  const rank = data.dims.length;
  const axis = operation.int("axis", 1);
  const cut = axis < 0 ? axis + rank : axis;
  return reshaped(operation, data, [product(data.dims.slice(0, cut)), product(data.dims.slice(cut))]);
};

/**
 * The same elements in order, with other dimensions; one may be -1, the remaining length. Rows stay whole where the
 * number of elements before their axis stays the same: each row's elements then stay contiguous.
 */
function reshaped(operation: Operation, data: Shaped, wanted: readonly Size[]): Fixed | Rows {
  const open = wanted.findIndex((length) => numberIn(length) === -1);
  const dims = [...wanted];
  if (open >= 0) {
    const total = product(data.dims);
    const rest = product(wanted.filter((_, d) => d !== open));
    dims[open] = dividedBy(total, rest) ?? leftOver(operation, total, rest);
  }
  if (data.kind === "fixed") {
    if (dims.some(dependsOnRows)) throw new UnprovenError("it computes with the number of rows");
    return fixed(dims, dims.length <= 1 ? data.elements : null);
  }
  const axis = dims.findIndex(dependsOnRows);
  if (axis < 0) throw new UnprovenError("its output shape has a fixed number of rows");
  if (!sameSize(product(dims.slice(0, axis)), product(data.dims.slice(0, data.axis)))) {
    throw new UnprovenError("it changes the number of elements before the row axis");
  }
  return rows(dims, axis);
}

/** The remaining length, where the division is not certain to be exact: any length, unless rows are part of it. */
function leftOver(operation: Operation, total: Size, rest: Size): Size {
  if (dependsOnRows(total) !== dependsOnRows(rest)) throw new UnprovenError("it may merge or split rows");
  return operation.newLength();
}

const transpose: Rule = (operation) => {
  const data = shapedLengths(operation, 0);
  const order = operation.numbers("perm") ?? data.dims.map((_, d) => data.dims.length - 1 - d);
  const dims = order.map((d) => data.dims[d] ?? one);
  return data.kind === "rows"
    ? rows(dims, order.indexOf(data.axis))
    : fixed(dims, dims.length <= 1 ? data.elements : null);
};

const squeeze: Rule = (operation) => {
  const data = shapedLengths(operation, 0);
  const axes = axesOf(operation, 1, data.dims.length);
  if (axes === null && data.kind === "rows")
    throw new UnprovenError("it removes every dimension of 1, which includes the row axis of a single row");
  if (axes === null) return fixed(null, data.kind === "fixed" ? data.elements : null);
  expectNotAlong(data, axes, "removes");
  const dims = data.dims.filter((_, d) => !axes.includes(d));
  if (data.kind === "fixed") return fixed(dims, data.elements);
  return rows(dims, data.axis - axes.filter((axis) => axis < data.axis).length);
};

const unsqueeze: Rule = (operation) => {
  const data = shapedLengths(operation, 0);
  const said = operation.numbers("axes") ?? numbersOf(operation, 1) ?? [];
  const rank = data.dims.length + said.length;
  const axes = said.map((axis) => fromStart(axis, rank));
  const kept = data.dims.map((length, d) => ({ length, d })).values();
  const places = Array.from({ length: rank }, (_, d) => (axes.includes(d) ? null : (kept.next().value ?? null)));
  const dims = places.map((place) => place?.length ?? one);
  if (data.kind === "fixed") return fixed(dims, rank <= 1 ? data.elements : null);
  return rows(
    dims,
    places.findIndex((place) => place?.d === data.axis),
  );
};

/** Broadcasts to a shape. A fixed tensor may be repeated for each row; rows are never repeated. */
const expand: Rule = (operation) => {
  const data = input(operation, 0);
  const lengths = lengthsOf(operation, 1);
  if (lengths === null || data.dims === null) {
    if (data.kind === "rows") throw new UnprovenError("its output shape is not known");
    return fixed(null);
  }
  const axis = lengths.findIndex(dependsOnRows);
  if (axis < 0) return broadcast(operation, [data, fixed(lengths)]);
  return broadcast(operation, [data, rows(lengths, axis)]);
};

const tile: Rule = (operation) => {
  const data = shaped(operation, 0);
  const repeats = lengthsOf(operation, 1);
  if (repeats === null) {
    if (data.kind === "rows") throw new UnprovenError("the number of repeats is not known");
    return fixed(newDims(operation, data.dims.length));
  }
  const dims = data.dims.map((length, d) => times(length, repeats[d] ?? one));
  if (data.kind === "fixed") {
    const axis = dims.findIndex(dependsOnRows);
    return axis < 0 ? fixed(dims) : rows(dims, axis);
  }
  if (!isOne(repeats[data.axis] ?? one)) throw new UnprovenError("it repeats along the row axis");
  return rows(dims, data.axis);
};

const concat: Rule = (operation) => {
  const values = operation.inputs.map((_, i) => shapedLengths(operation, i));
  const [first] = values;
  if (first === undefined) throw new UnprovenError("it has no input");
  const axis = fromStart(operation.int("axis", 1), first.dims.length);
  const withRows = values.filter((value): value is Rows => value.kind === "rows");
  if (withRows.length === 0) {
    const lists = values.map((value) => (value as Fixed).elements);
    const elements = first.dims.length === 1 && lists.every((list) => list !== null) ? lists.flat() : null;
    if (elements === null && !values.every((value) => isSteady(value as Fixed))) {
      throw new UnprovenError("it computes with the number of rows");
    }
    return fixed(
      first.dims.map((length, d) => (d === axis ? total(operation, values, axis) : length)),
      elements,
    );
  }
  for (const value of values) {
    expectNotAlong(value, [axis], "joins along");
    const same = value.kind === "rows" && value.axis === withRows[0]?.axis;
    if (!same) throw new UnprovenError("it joins rows with a tensor that is not one entry a row");
    if (!sameSize(value.dims[value.axis] as Size, withRows[0]?.dims[value.axis] as Size)) {
      throw new UnprovenError("its inputs have different numbers of entries a row");
    }
  }
  return rows(
    first.dims.map((length, d) => (d === axis ? total(operation, values, axis) : length)),
    withRows[0]?.axis as number,
  );
};

/** The sum of the values' lengths along an axis. */
function total(operation: Operation, values: readonly { dims: readonly Size[] }[], axis: number): Size {
  const lengths = values.map(({ dims }) => numberIn(dims[axis] as Size));
  return lengths.includes(null)
    ? operation.newLength()
    : sizeOf(lengths.reduce((sum: number, length) => sum + (length as number), 0));
}

const split: Rule = (operation) => {
  const data = shaped(operation, 0);
  const axis = fromStart(operation.int("axis", 0), data.dims.length);
  expectNotAlong(data, [axis], "splits");
  const lengths = operation.numbers("split") ?? (has(operation, 1) ? numbersOf(operation, 1) : null);
  const whole = numberIn(data.dims[axis] as Size);
  const even = whole !== null && whole % operation.outputs === 0 ? sizeOf(whole / operation.outputs) : null;
  return Array.from({ length: operation.outputs }, (_, i) => {
    const said = lengths?.[i];
    const length = said === undefined ? (even ?? operation.newLength()) : sizeOf(said);
    const dims = data.dims.map((own, d) => (d === axis ? length : own));
    return withDims(data, dims, data.kind === "rows" ? data.axis : 0);
  });
};

/** Operators that move elements without reading them. */
export const shapeRules: Record<string, Rule> = {
  Shape: shape,
  Size: size,
  Constant: constant,
  ConstantOfShape: constantOfShape,
  Range: range,
  Reshape: reshape,
  Flatten: flatten,
  Transpose: transpose,
  Squeeze: squeeze,
  Unsqueeze: unsqueeze,
  Expand: expand,
  Tile: tile,
  Concat: concat,
  Split: split,
};
