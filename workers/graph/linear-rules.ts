import {
  broadcast,
  expectFixed,
  fixed,
  type Operation,
  type Rule,
  rows,
  type Shaped,
  shaped,
  UnprovenError,
  withDims,
} from "./abstract-tensor.js";
import { isOne, one, type Size, sameSize } from "./sizes.js";

/**
 * Matrix products: rows may be rows of the left matrix, columns of the right one, or lie along an axis before both, but
 * not along the summed axis.
 */
const matMul: Rule = (operation) => product(operation, shaped(operation, 0), shaped(operation, 1));

function product(operation: Operation, left: Shaped, right: Shaped) {
  const [a, b] = [left.dims.length, right.dims.length];
  if (a === 0 || b === 0) throw new UnprovenError("it multiplies a scalar as a matrix");
  const summedLeft = a - 1;
  const summedRight = Math.max(0, b - 2);
  if ((left.kind === "rows" && left.axis === summedLeft) || (right.kind === "rows" && right.axis === summedRight)) {
    throw new UnprovenError("it sums over the rows");
  }
  const height = a > 1 ? [left.dims[a - 2] as Size] : [];
  const width = b > 1 ? [right.dims[b - 1] as Size] : [];
  // The dimensions before the matrices are aligned at the last one, as in elementwise operators.
  const leading = [left, right].map((value) => {
    const dims = value.dims.slice(0, -2);
    return value.kind === "rows" && value.axis < dims.length ? rows(dims, value.axis) : fixed(dims);
  });
  const before = broadcast(operation, leading);
  const dims = [...(before.dims as readonly Size[]), ...height, ...width];
  const rank = (before.dims as readonly Size[]).length;
  const places: number[] = [];
  if (before.kind === "rows") places.push(before.axis);
  if (left.kind === "rows" && left.axis === a - 2) places.push(rank);
  if (right.kind === "rows" && b > 1 && right.axis === b - 1) places.push(rank + height.length);
  if (places.length > 1) throw new UnprovenError("it multiplies rows with one another");
  return places.length === 0 ? fixed(dims) : rows(dims, places[0] as number);
}

/** As `MatMul`, with small integers; each zero point is one number. */
const matMulInteger: Rule = (operation) => {
  expectScalars(operation, 2, 3);
  return matMul(operation);
};

const qLinearMatMul: Rule = (operation) => {
  expectScalars(operation, 1, 2);
  expectFixed(operation, 4, 5);
  expectScalars(operation, 6, 7);
  return product(operation, shaped(operation, 0), shaped(operation, 3));
};

/** Throws unless these inputs, where given, are fixed single numbers. */
function expectScalars(operation: Operation, ...places: readonly number[]): void {
  expectFixed(operation, ...places);
  for (const i of places) {
    const dims = operation.inputs[i] == null ? [] : shaped(operation, i).dims;
    if (!dims.every(isOne)) throw new UnprovenError("its scales or zero points are not single numbers");
  }
}

const gemm: Rule = (operation) => {
  const turned = (value: Shaped, turns: boolean): Shaped => {
    if (!turns) return value;
    const dims = [...value.dims].reverse();
    return withDims(value, dims, value.kind === "rows" ? 1 - value.axis : 0) as Shaped;
  };
  const left = turned(shaped(operation, 0), operation.int("transA", 0) !== 0);
  const right = turned(shaped(operation, 1), operation.int("transB", 0) !== 0);
  const made = product(operation, left, right);
  return operation.inputs[2] == null ? made : broadcast(operation, [made, shaped(operation, 2)]);
};

/** Filters slide along the axes after the first two; the first is the row axis, and the filters are fixed. */
const convolution =
  (dataAt: number, filtersAt: number): Rule =>
  (operation) => {
    const data = shaped(operation, dataAt);
    const filters = shaped(operation, filtersAt);
    expectFixed(operation, ...[...operation.inputs.keys()].filter((i) => i !== dataAt));
    expectFirst(data);
    const channels = operation.type === "ConvTranspose" ? operation.newLength() : (filters.dims[0] ?? one);
    return withDims(data, [data.dims[0] ?? one, channels, ...data.dims.slice(2).map(operation.newLength)], 0);
  };

function expectFirst(data: Shaped): void {
  if (data.kind === "rows" && data.axis !== 0) throw new UnprovenError("its rows do not lie along the first axis");
}

/** A window along the axes after the first two. The indices output of MaxPool counts through all rows. */
const pool: Rule = (operation) => {
  const data = shaped(operation, 0);
  expectFirst(data);
  const dims = [data.dims[0] ?? one, data.dims[1] ?? one, ...data.dims.slice(2).map(operation.newLength)];
  const value = withDims(data, dims, 0);
  return [value, { kind: "unknown", reason: "the indices of MaxPool count through all rows" }];
};

const globalPool: Rule = (operation) => {
  const data = shaped(operation, 0);
  expectFirst(data);
  return withDims(
    data,
    data.dims.map((length, d) => (d < 2 ? length : one)),
    0,
  );
};

/**
 * The letter of the row axis must be the same in all terms with rows, occur in the result, and occur in no other term.
 */
const einsum: Rule = (operation) => {
  const [terms, result] = operation.text("equation", "").replaceAll(" ", "").split("->");
  if (terms === undefined || result === undefined || terms.includes("."))
    throw new UnprovenError("its equation is of an unsupported form");
  const letters = terms.split(",");
  const lengths = new Map<string, Size>();
  const own = new Map<string, Size>();
  const values = letters.map((_, i) => shaped(operation, i));
  for (const [i, value] of values.entries()) {
    const term = letters[i] as string;
    if (term.length !== value.dims.length || new Set(term).size !== term.length)
      throw new UnprovenError("its equation is of an unsupported form");
    for (const [d, length] of value.dims.entries()) {
      const letter = term[d] as string;
      const known = lengths.get(letter);
      // A length of 1 is broadcast to the length in the other terms.
      if (known === undefined || isOne(known)) lengths.set(letter, length);
      else if (!isOne(length) && !sameSize(known, length)) lengths.set(letter, operation.newLength());
    }
    if (value.kind === "rows") own.set(term[value.axis] as string, value.dims[value.axis] as Size);
  }
  const dims = [...result].map((letter) => lengths.get(letter) ?? one);
  if (own.size === 0) return fixed(dims);
  const [[letter, length]] = own as unknown as [[string, Size]];
  const axis = result.indexOf(letter);
  const kept = values.every((value, i) => {
    const at = (letters[i] as string).indexOf(letter);
    return at < 0 || (value.kind === "rows" && value.axis === at && sameSize(value.dims[at] as Size, length));
  });
  if (own.size > 1 || axis < 0 || !kept) throw new UnprovenError("its equation does not keep the rows apart");
  return rows(dims, axis);
};

/** Sums of products along axes other than the row axis. */
export const linearRules: Record<string, Rule> = {
  MatMul: matMul,
  MatMulInteger: matMulInteger,
  QLinearMatMul: qLinearMatMul,
  Gemm: gemm,
  Conv: convolution(0, 1),
  ConvInteger: convolution(0, 1),
  ConvTranspose: convolution(0, 1),
  QLinearConv: convolution(0, 3),
  MaxPool: pool,
  AveragePool: pool,
  LpPool: pool,
  GlobalAveragePool: globalPool,
  GlobalMaxPool: globalPool,
  GlobalLpPool: globalPool,
  Einsum: einsum,
};
