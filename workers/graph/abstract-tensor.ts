import { dependsOnRows, isOne, isPartOf, numberIn, rowCount, type Size, sameSize } from "./sizes.js";

/**
 * What is known of a tensor whatever a run's rows hold:
 * - `fixed`: it is the same in company as alone. Its elements are kept where it is a short list of numbers; those of a
 *   list of lengths may depend on how many rows there are, and then only what reads lengths may use it.
 * - `rows`: along `axis` the rows stand in order, each with the same number of entries, and none depends on another
 *   row.
 * - `unknown`: nothing of that has been shown.
 */
export type Value = Fixed | Rows | Unknown;

export interface Fixed {
  kind: "fixed";
  /** Null where not even the number of dimensions is known. */
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

/** Rows could not be shown to be kept apart. The message says by what, without its operator's name. */
export class UnprovenError extends Error {}

export const fixed = (dims: readonly Size[] | null, elements: readonly Size[] | null = null): Fixed => ({
  kind: "fixed",
  dims,
  elements,
});

/** A tensor of rows. Throws an UnprovenError where the axis is not made of them alone. */
export function rows(dims: readonly Size[], axis: number): Rows {
  const others = dims.filter((size, d) => d !== axis && dependsOnRows(size));
  const own = dims[axis];
  if (own === undefined || others.length > 0 || !holdsRowsOnce(own)) {
    throw new UnprovenError("its rows do not stay whole along one axis");
  }
  return { kind: "rows", dims, axis };
}

/** Whether a length is the number of rows, times what company does not change. */
const holdsRowsOnce = ({ factor, symbols }: Size): boolean =>
  factor > 0 && Number.isInteger(factor) && symbols.filter((symbol) => rowCount.symbols.includes(symbol)).length === 1;

/** Whether a value may be used as numbers: lengths that depend on the number of rows may not. */
export const isSteady = (value: Fixed): boolean => value.elements === null || !value.elements.some(dependsOnRows);

/** One operator of a graph, with what is known of its inputs. */
export interface Operation {
  type: string;
  opset: number;
  /** Null where an optional input is left out. */
  inputs: readonly (Value | null)[];
  /** How many outputs there are, up to the last one that has a name. */
  outputs: number;
  int(name: string, preset: number): number;
  float(name: string, preset: number): number;
  text(name: string, preset: string): string;
  numbers(name: string): readonly number[] | null;
  /** How many numbers or texts a list attribute has. */
  count(name: string): number;
  /** What a constant attribute holds. */
  constant(name: string): Fixed | null;
  /** A length that nothing is known of but that company does not change it. */
  newLength(): Size;
  /** Likewise some number. */
  newNumber(): Size;
}

/** What an operator makes of its inputs, one value for each output. Throws an UnprovenError. */
export type Rule = (operation: Operation) => Value | readonly Value[];

/** An input that must be there. One that holds lengths which depend on the number of rows is for `lengthsAt` alone. */
export function input(operation: Operation, i: number): Fixed | Rows {
  const value = lengthsAt(operation, i);
  if (value.kind === "fixed" && !isSteady(value)) throw new UnprovenError("it reckons with the number of rows");
  return value;
}

/** An input that must be there, and that is read as lengths if it holds any. */
export function lengthsAt(operation: Operation, i: number): Fixed | Rows {
  const value = operation.inputs[i];
  if (value == null || value.kind === "unknown") throw new UnprovenError(`it has no input ${i}`);
  return value;
}

export type Shaped = (Fixed & { dims: readonly Size[] }) | Rows;

/** An input whose dimensions are known. */
export const shaped = (operation: Operation, i: number): Shaped => withShape(input(operation, i), i);

/** Likewise one that may hold lengths. */
export const shapedLengths = (operation: Operation, i: number): Shaped => withShape(lengthsAt(operation, i), i);

function withShape(value: Fixed | Rows, i: number): Shaped {
  if (value.dims === null) throw new UnprovenError(`the shape of its input ${i} is not known`);
  return value as Shaped;
}

/** Whether an input is there. */
export const has = ({ inputs }: Operation, i: number): boolean => inputs[i] != null;

/** Throws unless the inputs at these places, where they are there, are the same in company as alone. */
export function expectFixed(operation: Operation, ...places: readonly number[]): void {
  for (const i of places) {
    const value = operation.inputs[i];
    if (value == null) continue;
    if (value.kind !== "fixed" || !isSteady(value)) throw new UnprovenError(`its input ${i} depends on the rows`);
  }
}

/** The numbers that a fixed input holds; null where it is left out. Throws where they are not known. */
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
 * Numbers of a fixed input, null for each that is not known, of which there may be `most`; null where it is left out.
 * Throws where it depends on the rows.
 */
export function boundsOf(operation: Operation, i: number, most: number): (number | null)[] | null {
  if (!has(operation, i)) return null;
  expectFixed(operation, i);
  return (input(operation, i) as Fixed).elements?.map(numberIn) ?? new Array<null>(most).fill(null);
}

/** Axes, from an attribute or from an input as newer operators have them; null where neither says any. */
export function axesOf(operation: Operation, i: number, rank: number): number[] | null {
  const said = operation.numbers("axes") ?? numbersOf(operation, i);
  return said === null ? null : said.map((axis) => fromStart(axis, rank));
}

/** An axis counted from the first one. Throws where it is none. */
export function fromStart(axis: number, rank: number): number {
  const counted = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(counted) || counted < 0 || counted >= rank) throw new UnprovenError(`it has no axis ${axis}`);
  return counted;
}

/** A value of the same kind with other dimensions; `axis` is where the rows of one that has rows are now. */
export const withDims = (value: Fixed | Rows, dims: readonly Size[], axis: number): Fixed | Rows =>
  value.kind === "rows" ? rows(dims, axis) : fixed(dims);

/** Throws where a value's rows lie along one of these axes. */
export function expectNotAlong(value: Fixed | Rows, axes: readonly number[], what: string): void {
  if (value.kind === "rows" && axes.includes(value.axis)) throw new UnprovenError(`it ${what} the axis of the rows`);
}

/**
 * What comes of values that are combined element by element, with their dimensions held together from the last one on:
 * all rows must lie along the same axis, and nothing that is no row may have more than one entry there.
 */
export function broadcast(operation: Operation, values: readonly (Fixed | Rows)[]): Fixed | Rows {
  const withRows = values.filter((value) => value.kind === "rows");
  for (const value of values) {
    if (value.kind === "fixed" && !isSteady(value)) throw new UnprovenError("it reckons with the number of rows");
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
      throw new UnprovenError("rows are paired with the entries of something that is no row");
    }
  }
  return rows(dims, axis);
}

/** The length where one of two is stretched, or both are the same number though it does not show. */
function joined(operation: Operation, a: Size, b: Size): Size {
  if (dependsOnRows(a) || dependsOnRows(b)) throw new UnprovenError("rows are paired with what is not one a row");
  if (isPartOf(a, b)) return b;
  if (isPartOf(b, a)) return a;
  if (numberIn(a) !== null) return a;
  return numberIn(b) !== null ? b : operation.newLength();
}

/** Fixed dimensions of this many axes, of which nothing else is known. */
export const newDims = (operation: Operation, rank: number): Size[] =>
  Array.from({ length: rank }, () => operation.newLength());
