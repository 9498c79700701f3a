import { dependsOnRows, isOne, isPartOf, numberIn, rowCount, type Size, sameSize } from "./sizes.js";

/**
 * Abstract value of a tensor, valid for any rows in the run:
 * - `fixed`: the same in company as alone. The elements of a short list of numbers are kept. Elements that are lengths
 *   may depend on the number of rows; then only rules that read lengths may use the tensor.
 * - `rows`: the rows lie in order along `axis`, each with the same number of entries, and no row depends on another.
 * - `unknown`: nothing is proven.
 */
export type Value = Fixed | Rows | Unknown;

export interface Fixed {
  kind: "fixed";
  /** Null where even the rank is unknown. */
  dims: readonly Size[] | null;
  elements: readonly Size[] | null;
}

export interface Rows {
  kind: "rows";
  dims: readonly Size[];
  axis: number;
}

export interface Unknown {
  kind: "unknown";
  reason: string;
}

/** Rows are not proven to be kept apart. The message gives the cause, without the operator's name. */
export class UnprovenError extends Error {}

export const fixed = (dims: readonly Size[] | null, elements: readonly Size[] | null = null): Fixed => ({
  kind: "fixed",
  dims,
  elements,
});

/** A tensor of rows. Throws an UnprovenError where the axis does not consist of whole rows. */
export function rows(dims: readonly Size[], axis: number): Rows {
  const others = dims.filter((size, d) => d !== axis && dependsOnRows(size));
  const own = dims[axis];
  if (own === undefined || others.length > 0 || !holdsRowsOnce(own)) {
    throw new UnprovenError("its rows do not stay whole along one axis");
  }
  return { kind: "rows", dims, axis };
}

/** Whether a length is the number of rows times a factor that is the same in company as alone. */
const holdsRowsOnce = ({ factor, symbols }: Size): boolean =>
  factor > 0 && Number.isInteger(factor) && symbols.filter((symbol) => rowCount.symbols.includes(symbol)).length === 1;

/** Whether a value may be used in arithmetic: lengths that depend on the number of rows may not. */
export const isSteady = (value: Fixed): boolean => value.elements === null || !value.elements.some(dependsOnRows);

/** One operator of a graph, with the abstract values of its inputs. */
export interface Operation {
  type: string;
  opset: number;
  /** Null for an omitted optional input. */
  inputs: readonly (Value | null)[];
  /** Number of outputs, up to the last one with a name. */
  outputs: number;
  int(name: string, preset: number): number;
  float(name: string, preset: number): number;
  text(name: string, preset: string): string;
  numbers(name: string): readonly number[] | null;
  /** Number of elements of a list attribute. */
  count(name: string): number;
  /** Value of a constant attribute. */
  constant(name: string): Fixed | null;
  /** An unknown length that is the same in company as alone. */
  newLength(): Size;
  /** An unknown number that is the same in company as alone. */
  newNumber(): Size;
}

/** Abstract outputs of an operator, one value for each. Throws an UnprovenError. */
export type Rule = (operation: Operation) => Value | readonly Value[];

/** A required input. Throws for lengths that depend on the number of rows; `lengthsAt` allows them. */
export function input(operation: Operation, i: number): Fixed | Rows {
  const value = lengthsAt(operation, i);
  if (value.kind === "fixed" && !isSteady(value)) throw new UnprovenError("it computes with the number of rows");
  return value;
}

/** A required input, whose elements may be lengths. */
export function lengthsAt(operation: Operation, i: number): Fixed | Rows {
  const value = operation.inputs[i];
  if (value == null || value.kind === "unknown") throw new UnprovenError(`it has no input ${i}`);
  return value;
}

export type Shaped = (Fixed & { dims: readonly Size[] }) | Rows;

/** An input whose dimensions are known. */
export const shaped = (operation: Operation, i: number): Shaped => withShape(input(operation, i), i);

/** The same for an input whose elements may be lengths. */
export const shapedLengths = (operation: Operation, i: number): Shaped => withShape(lengthsAt(operation, i), i);

function withShape(value: Fixed | Rows, i: number): Shaped {
  if (value.dims === null) throw new UnprovenError(`the shape of its input ${i} is not known`);
  return value as Shaped;
}

/** Whether an optional input is given. */
export const has = ({ inputs }: Operation, i: number): boolean => inputs[i] != null;

/** Throws unless these inputs, where given, are the same in company as alone. */
export function expectFixed(operation: Operation, ...places: readonly number[]): void {
  for (const i of places) {
    const value = operation.inputs[i];
    if (value == null) continue;
    if (value.kind !== "fixed" || !isSteady(value)) throw new UnprovenError(`its input ${i} depends on the rows`);
  }
}

/** The numbers of a fixed input; null where it is omitted. Throws where they are unknown. */
export function numbersOf(operation: Operation, i: number): number[] | null {
  const value = operation.inputs[i];
  if (value == null) return null;
  const elements = value.kind === "fixed" ? value.elements : null;
  const numbers = elements?.map(numberIn);
  if (numbers === undefined || numbers.includes(null))
    throw new UnprovenError(`the numbers of its input ${i} are not known`);
  return numbers as number[];
}

/**
 * Numbers of a fixed input, null for each unknown one; `most` nulls where the elements are unknown, null where the
 * input is omitted. Throws where it depends on the rows.
 */
export function boundsOf(operation: Operation, i: number, most: number): (number | null)[] | null {
  if (!has(operation, i)) return null;
  expectFixed(operation, i);
  return (input(operation, i) as Fixed).elements?.map(numberIn) ?? new Array<null>(most).fill(null);
}

/** Axes from an attribute, or from an input as in newer operators; null where neither is given. */
export function axesOf(operation: Operation, i: number, rank: number): number[] | null {
  const said = operation.numbers("axes") ?? numbersOf(operation, i);
  return said === null ? null : said.map((axis) => fromStart(axis, rank));
}

/** An axis counted from the first one. Throws for one outside the rank. */
export function fromStart(axis: number, rank: number): number {
  const counted = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(counted) || counted < 0 || counted >= rank)
    throw new UnprovenError(`its input has no axis ${axis}`);
  return counted;
}

/** A value of the same kind with other dimensions; `axis` is the new axis of rows. */
export const withDims = (value: Fixed | Rows, dims: readonly Size[], axis: number): Fixed | Rows =>
  value.kind === "rows" ? rows(dims, axis) : fixed(dims);

/** Throws where a value's rows lie along one of these axes. */
export function expectNotAlong(value: Fixed | Rows, axes: readonly number[], what: string): void {
  if (value.kind === "rows" && axes.includes(value.axis)) throw new UnprovenError(`it ${what} the row axis`);
}

/**
 * Result of an elementwise combination, with dimensions aligned at the last one. All rows must lie along the same axis,
 * and fixed values must have at most one entry there.
 */
export function broadcast(operation: Operation, values: readonly (Fixed | Rows)[]): Fixed | Rows {
  const withRows = values.filter((value) => value.kind === "rows");
  for (const value of values) {
    if (value.kind === "fixed" && !isSteady(value)) throw new UnprovenError("it computes with the number of rows");
  }
  if (values.some(({ dims }) => dims === null)) {
    if (withRows.length === 0) return fixed(null);
    throw new UnprovenError("the shape of one of its inputs is not known");
  }
  const rank = Math.max(...values.map(({ dims }) => (dims as readonly Size[]).length));
  const dims: Size[] = [];
  for (let d = 0; d < rank; d++) {
    let length: Size | null = null;
    for (const value of values) {
      const own = value.dims as readonly Size[];
      const size = own[own.length - rank + d];
      if (size === undefined || isOne(size)) continue;
      length = length === null || sameSize(length, size) ? size : joined(operation, length, size);
    }
    dims.push(length ?? { factor: 1, symbols: [] });
  }
  const [first] = withRows;
  if (first === undefined) return fixed(dims);
  const axis = rank - first.dims.length + first.axis;
  for (const value of values) {
    const own = value.dims as readonly Size[];
    const at = own.length - rank + axis;
    if (value.kind === "rows") {
      if (value.axis !== at) throw new UnprovenError("the rows of its inputs lie along different axes");
      if (!sameSize(own[at] as Size, first.dims[first.axis] as Size)) {
        throw new UnprovenError("its inputs have different numbers of entries a row");
      }
    } else if (at >= 0 && !isOne(own[at] as Size)) {
      throw new UnprovenError("it pairs rows with the entries of a tensor without rows");
    }
  }
  return rows(dims, axis);
}

/** The length after broadcasting: one of the two is stretched, or both are equal without a proof. */
function joined(operation: Operation, a: Size, b: Size): Size {
  if (dependsOnRows(a) || dependsOnRows(b))
    throw new UnprovenError("it pairs rows with a dimension that is not one entry a row");
  if (isPartOf(a, b)) return b;
  if (isPartOf(b, a)) return a;
  if (numberIn(a) !== null) return a;
  return numberIn(b) !== null ? b : operation.newLength();
}

/** Fixed dimensions of this rank, of unknown lengths. */
export const newDims = (operation: Operation, rank: number): Size[] =>
  Array.from({ length: rank }, () => operation.newLength());
