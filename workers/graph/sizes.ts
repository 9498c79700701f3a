/**
 * A length of a dimension, or an element of a tensor of lengths: a whole number times symbols. Two sizes are certainly
 * equal where number and symbols are the same. The symbol `rows` is the number of rows in a run; every other symbol
 * stands for a value that is the same in company as alone.
 */
export interface Size {
  readonly factor: number;
  /** Sorted; a repeated symbol is a power. */
  readonly symbols: readonly string[];
}

const rowsSymbol = "rows";
/** Prefixes of symbols for lengths of dimensions, hence never negative; the last kind may be 0. */
const [namedMark, placeMark, madeMark] = ["length of ", "length at ", "some length of "] as const;

export const one: Size = { factor: 1, symbols: [] };
export const rowCount: Size = { factor: 1, symbols: [rowsSymbol] };

export const sizeOf = (factor: number): Size => ({ factor, symbols: [] });

/** The length of a dimension known by name only. */
export const lengthNamed = (name: string): Size => ({ factor: 1, symbols: [`${namedMark}${name}`] });

/** The length of an unnamed dimension, identified by its place. */
export const lengthAt = (place: string): Size => ({ factor: 1, symbols: [`${placeMark}${place}`] });

/** An unknown length made by an operator. */
export const lengthMadeBy = (operator: string): Size => ({ factor: 1, symbols: [`${madeMark}${operator}`] });

/** An unknown whole number, which may be negative. */
export const numberNamed = (name: string): Size => ({ factor: 1, symbols: [name] });

/** Whether a 32-bit integer can hold it: a larger number may overflow in arithmetic or in a cast. */
export const isModest = ({ factor }: Size): boolean => Math.abs(factor) <= 2 ** 31 - 1;

/** The number of a size without symbols; else null. */
export const numberIn = ({ factor, symbols }: Size): number | null =>
  symbols.length === 0 || factor === 0 ? factor : null;

export const isOne = (size: Size): boolean => numberIn(size) === 1;

export const dependsOnRows = ({ symbols }: Size): boolean => symbols.includes(rowsSymbol);

export const isNeverNegative = ({ factor, symbols }: Size): boolean =>
  factor >= 0 && symbols.every((symbol) => symbol === rowsSymbol || lengthMarks.some((own) => symbol.startsWith(own)));

const leastMark = "least length, the first ";
const lengthMarks = [namedMark, placeMark, madeMark, leastMark];

/** The number of entries taken from `whole` (at least 1) with `length` as the upper limit. */
export const leastOf = (whole: number, length: Size): Size | null =>
  whole >= 1 && isNamed(length) ? { factor: 1, symbols: [`${leastMark}${whole} of ${length.symbols[0]}`] } : null;

/** Whether `part` is `leastOf` some number and this length: between 1 and the length. */
export const isPartOf = (part: Size, length: Size): boolean =>
  isNamed(length) && part.factor === 1 && part.symbols.length === 1 && isLeast(part.symbols[0], length.symbols[0]);

const isNamed = ({ factor, symbols: [only, ...others] }: Size): boolean =>
  factor === 1 &&
  only !== undefined &&
  others.length === 0 &&
  [namedMark, placeMark].some((own) => only.startsWith(own));

const isLeast = (part = "", length = ""): boolean =>
  part.startsWith(leastMark) && part.slice(leastMark.length).replace(/^\d+ of /, "") === length;

/** Whether a length may be 0. Requests with an empty tensor are never joined, so lengths of inputs are not 0. */
export const mayBeZero = ({ factor, symbols }: Size): boolean =>
  factor === 0 || symbols.some((symbol) => symbol.startsWith(madeMark));

export const sameSize = (a: Size, b: Size): boolean =>
  a.factor === b.factor && a.symbols.length === b.symbols.length && a.symbols.every((s, i) => s === b.symbols[i]);

export function times(a: Size, b: Size): Size {
  const factor = a.factor * b.factor;
  return { factor, symbols: factor === 0 ? [] : [...a.symbols, ...b.symbols].sort() };
}

export const product = (sizes: readonly Size[]): Size => sizes.reduce(times, one);

/** `a / b` where the division is certainly exact; else null. */
export function dividedBy(a: Size, b: Size): Size | null {
  if (b.factor === 0 || a.factor % b.factor !== 0) return null;
  const symbols = [...a.symbols];
  for (const symbol of b.symbols) {
    const i = symbols.indexOf(symbol);
    if (i < 0) return null;
    symbols.splice(i, 1);
  }
  return { factor: a.factor / b.factor, symbols };
}
