import {
  axesOf,
  boundsOf,
  expectFixed,
  expectNotAlong,
  type Fixed,
  fixed,
  fromStart,
  input,
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
import { leastOf, numberIn, one, type Size, sameSize, sizeOf } from "./sizes.js";

/** Picks entries by index: of a fixed table by indices in rows, or of rows by fixed indices. */
const gather: Rule = (operation) => {
  const data = shapedLengths(operation, 0);
  const axis = fromStart(operation.int("axis", 0), data.dims.length);
  const indices = shaped(operation, 1);
  const dims = [...data.dims.slice(0, axis), ...indices.dims, ...data.dims.slice(axis + 1)];
  if (data.kind === "fixed" && data.elements !== null) return gatherLengths(operation, data.elements, indices, dims);
  if (data.kind === "fixed") return withDims(indices, dims, indices.kind === "rows" ? axis + indices.axis : 0);
  if (indices.kind === "rows") throw new UnprovenError("it picks from rows by indices in rows");
  expectNotAlong(data, [axis], "picks along");
  return rows(dims, data.axis < axis ? data.axis : data.axis + indices.dims.length - 1);
};

function gatherLengths(
  operation: Operation,
  elements: readonly Size[],
  indices: Shaped,
  dims: readonly Size[],
): Fixed | Rows {
  if (indices.kind === "rows") {
    input(operation, 0);
    return rows(dims, indices.axis);
  }
  const picked = indices.elements?.map(numberIn).map((i) => (i === null ? undefined : elements.at(i)));
  if (picked === undefined || picked.includes(undefined)) {
    input(operation, 0);
    return fixed(dims);
  }
  return fixed(dims, picked as Size[]);
}

/** Picks along an axis by an index for each element; both inputs must have their rows along the same other axis. */
const gatherElements: Rule = (operation) => {
  const [data, indices] = [shaped(operation, 0), shaped(operation, 1)];
  const axis = fromStart(operation.int("axis", 0), data.dims.length);
  if (data.kind === "fixed" && indices.kind === "fixed") return fixed(indices.dims);
  expectAlike(data, indices);
  expectNotAlong(data, [axis], "picks along");
  return rows(indices.dims, (indices as Rows).axis);
};

const scatterElements: Rule = (operation) => {
  const [data, indices, updates] = [shaped(operation, 0), shaped(operation, 1), shaped(operation, 2)];
  const axis = fromStart(operation.int("axis", 0), data.dims.length);
  if ([data, indices, updates].every(({ kind }) => kind === "fixed")) return fixed(data.dims);
  expectAlike(data, indices);
  expectAlike(data, updates);
  expectNotAlong(data, [axis], "writes along");
  return rows(data.dims, (data as Rows).axis);
};

/** Throws unless both have rows along the same axis, with the same number of entries each. */
function expectAlike(a: Shaped, b: Shaped): void {
  const alike =
    a.kind === "rows" &&
    b.kind === "rows" &&
    a.axis === b.axis &&
    sameSize(a.dims[a.axis] as Size, b.dims[b.axis] as Size);
  if (!alike) throw new UnprovenError("its inputs do not all have their rows along the same axis");
}

const gatherNd: Rule = (operation) => {
  const [data, indices] = [shaped(operation, 0), shaped(operation, 1)];
  const leading = operation.int("batch_dims", 0);
  const depth = numberIn(indices.dims.at(-1) ?? one);
  const last = indices.dims.length - 1;
  if (depth === null) throw new UnprovenError("the number of axes that it picks along is not known");
  const dims = [...indices.dims.slice(0, -1), ...data.dims.slice(leading + depth)];
  if (data.kind === "fixed" && indices.kind === "fixed") return fixed(dims);
  if (data.kind === "fixed" && indices.kind === "rows" && leading === 0 && indices.axis < last)
    return rows(dims, indices.axis);
  expectAlike(data, indices);
  if ((data as Rows).axis >= leading) throw new UnprovenError("it picks along the row axis");
  return rows(dims, (data as Rows).axis);
};

/** A range of some axes; the row axis must stay whole. */
const slice: Rule = (operation) => {
  const data = shapedLengths(operation, 0);
  const rank = data.dims.length;
  const [starts, ends] =
    operation.opset < 10
      ? [operation.numbers("starts"), operation.numbers("ends")]
      : [boundsOf(operation, 1, rank), boundsOf(operation, 2, rank)];
  const axes = axesOf(operation, 3, rank) ?? Array.from({ length: starts?.length ?? rank }, (_, i) => i);
  const steps = operation.opset < 10 ? null : boundsOf(operation, 4, rank);
  if (data.kind === "fixed" && data.elements !== null) {
    if (starts?.[0] == null || ends?.[0] == null) {
      input(operation, 0);
      return fixed(newDims(operation, 1));
    }
    return sliceLengths(data.elements, starts[0], ends[0], steps === null ? 1 : (steps[0] ?? null));
  }
  const whole = (i: number) => starts?.[i] === 0 && (ends?.[i] ?? 0) >= endless && (steps === null || steps[i] === 1);
  if (data.kind === "rows") {
    const i = axes.indexOf(data.axis);
    if (i >= 0 && !whole(i)) throw new UnprovenError("it takes part of the row axis");
  }
  const dims = data.dims.map((length, d) => {
    const i = axes.indexOf(d);
    if (i < 0 || whole(i)) return length;
    const known = numberIn(length);
    const [start, end, step] = [starts?.[i], ends?.[i], steps === null ? 1 : steps[i]];
    const upTo = end === null && start === 0 && step === 1 && known !== null ? endAt(operation, i) : null;
    if (upTo !== null) return leastOf(known as number, upTo) ?? operation.newLength();
    if (known === null || start == null || end == null || step == null || step <= 0) return operation.newLength();
    const [from, to] = [clamped(start, known), clamped(end, known)];
    return sizeOf(Math.max(0, Math.ceil((to - from) / step)));
  });
  return withDims(data, dims, data.kind === "rows" ? data.axis : 0);
};

/** The end of a slice, where it is a known length. */
const endAt = (operation: Operation, i: number): Size | null => (operation.inputs[2] as Fixed).elements?.[i] ?? null;

/** Ends from here on exceed any length; exporters write the largest integer for "to the end". */
const endless = 2 ** 31 - 1;

const clamped = (at: number, length: number): number => Math.min(length, Math.max(0, at < 0 ? at + length : at));

function sliceLengths(elements: readonly Size[], start: number, end: number, step: number | null): Fixed {
  if (step === null || step <= 0) throw new UnprovenError("it takes lengths with a step that is not known");
  const part = elements.slice(clamped(start, elements.length), clamped(end, elements.length));
  const taken = part.filter((_, i) => i % step === 0);
  return fixed([sizeOf(taken.length)], taken);
}

/** Keeps entries along an axis by a fixed mask. */
const compress: Rule = (operation) => {
  const data = shaped(operation, 0);
  expectFixed(operation, 1);
  const said = operation.int("axis", Number.NaN);
  if (Number.isNaN(said)) {
    if (data.kind === "rows") throw new UnprovenError("it flattens the rows into one list");
    return fixed(newDims(operation, 1));
  }
  const axis = fromStart(said, data.dims.length);
  expectNotAlong(data, [axis], "keeps part of");
  return alongAxis(data, axis, operation.newLength());
};

/** The same dimensions, except one. */
const alongAxis = (data: Shaped, axis: number, length: Size): Fixed | Rows =>
  withDims(
    data,
    data.dims.map((own, d) => (d === axis ? length : own)),
    data.kind === "rows" ? data.axis : 0,
  );

/** The largest values along an axis, and their indices. */
const topK: Rule = (operation) => {
  const data = shaped(operation, 0);
  expectFixed(operation, 1);
  const axis = fromStart(operation.int("axis", -1), data.dims.length);
  expectNotAlong(data, [axis], "sorts along");
  const value = alongAxis(data, axis, operation.newLength());
  return [value, value];
};

const argument: Rule = (operation) => {
  const data = shaped(operation, 0);
  const axis = fromStart(operation.int("axis", 0), data.dims.length);
  expectNotAlong(data, [axis], "looks for the largest or smallest along");
  if (operation.int("keepdims", 1) !== 0) return alongAxis(data, axis, one);
  const dims = data.dims.filter((_, d) => d !== axis);
  return data.kind === "fixed" ? fixed(dims) : rows(dims, data.axis - (axis < data.axis ? 1 : 0));
};

const oneHot: Rule = (operation) => {
  const data = shaped(operation, 0);
  expectFixed(operation, 1, 2);
  const axis = fromStart(operation.int("axis", -1), data.dims.length + 1);
  const dims = [...data.dims.slice(0, axis), operation.newLength(), ...data.dims.slice(axis)];
  return data.kind === "fixed" ? fixed(dims) : rows(dims, data.axis < axis ? data.axis : data.axis + 1);
};

/** Works within the last two axes. */
const triangle: Rule = (operation) => {
  const data = shaped(operation, 0);
  expectFixed(operation, 1);
  const rank = data.dims.length;
  expectNotAlong(data, [rank - 2, rank - 1], "takes a triangle along");
  return data;
};

const cumulative: Rule = (operation) => {
  const data = shaped(operation, 0);
  const [axis] = numbersOf(operation, 1) ?? [];
  if (axis === undefined) throw new UnprovenError("its axis is not known");
  expectNotAlong(data, [fromStart(axis, data.dims.length)], "sums up along");
  return data;
};

/** Reverses the beginning of each row, of a length given for each row. */
const reverseSequence: Rule = (operation) => {
  const data = shaped(operation, 0);
  const lengths = shaped(operation, 1);
  const own = operation.int("batch_axis", 1);
  if (data.kind === "fixed" && lengths.kind === "fixed") return data;
  const fits = data.kind === "rows" && data.axis === own && lengths.kind === "rows" && isRowsOnly(data, lengths);
  if (!fits) throw new UnprovenError("it reverses along the row axis, or its lengths are not one entry a row");
  return data;
};

const isRowsOnly = (a: Rows, b: Rows): boolean => sameSize(a.dims[a.axis] as Size, b.dims[b.axis] as Size);

/** Operators that pick, order or place elements. */
export const selectRules: Record<string, Rule> = {
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherNd,
  ScatterElements: scatterElements,
  Slice: slice,
  Compress: compress,
  TopK: topK,
  ArgMax: argument,
  ArgMin: argument,
  OneHot: oneHot,
  Trilu: triangle,
  CumSum: cumulative,
  ReverseSequence: reverseSequence,
};
