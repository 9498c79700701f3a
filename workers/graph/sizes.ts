/**
 * A length of a dimension, or an element of a tensor that holds lengths: a whole number times symbols. Two are equal
 * for certain where number and symbols are the same. `rows` stands for how many rows a run has; every other symbol is
 * something that company does not change.
 */
export interface Size {
  readonly factor: number;
  /** Sorted; one that stands twice is squared. */
  readonly symbols: readonly string[];
}

const rowsSymbol = "rows";
/** Symbols that begin so are lengths of dimensions, hence never negative; the last one may be 0. */
const [namedMark, placeMark, madeMark] = ["length of ", "length at ", "some length of "] as const;

export const one: Size = { factor: 1, symbols: [] };
export const rowCount: Size = { factor: 1, symbols: [rowsSymbol] };

export const sizeOf = (factor: number): Size => ({ factor, symbols: [] });

/** The length of a dimension that is known by its name only. */
export const lengthNamed = (name: string): Size => ({ factor: 1, symbols: [`${namedMark}${name}`] });

/** The length of a dimension that has no name, told by where it is. */
export const lengthAt = (place: string): Size => ({ factor: 1, symbols: [`${placeMark}${place}`] });

/** A length that an operator makes, of which nothing is known. */
export const lengthMadeBy = (operator: string): Size => ({ factor: 1, symbols: [`${madeMark}${operator}`] });

/** Some whole number, which may be negative. */
export const numberNamed = (name: string): Size => ({ factor: 1, symbols: [name] });

/**
 * Whether integers of 32 bits hold it: what is larger may turn over where it is reckoned with or brought into a type.
 */
export const isModest = ({ factor }: Size): boolean => Math.abs(factor) <= 2 ** 31 - 1;

/** The number, where it is one; else null. */
export const numberIn = ({ factor, symbols }: Size): number | null =>
  symbols.length === 0 || factor === 0 ? factor : null;

export const isOne = (size: Size): boolean => numberIn(size) === 1;

export const dependsOnRows = ({ symbols }: Size): boolean => symbols.includes(rowsSymbol);

export const isNeverNegative = ({ factor, symbols }: Size): boolean =>
  factor >= 0 && symbols.every((symbol) => symbol === rowsSymbol || lengthMarks.some((own) => symbol.startsWith(own)));

const leastMark = "least length, the first ";
const lengthMarks = [namedMark, placeMark, madeMark, leastMark];

/** What is left of `whole` entries, one or more, where no more than `length` are taken. */
export const leastOf = (whole: number, length: Size): Size | null =>
  whole >= 1 && isNamed(length) ? { factor: 1, symbols: [`${leastMark}${whole} of ${length.symbols[0]}`] } : null;

/** Whether `part` is `leastOf` this length and a number: from 1 to what the length is. */
export const isPartOf = (part: Size, length: Size): boolean =>
  isNamed(length) && part.factor === 1 && part.symbols.length === 1 && isLeast(part.symbols[0], length.symbols[0]);

const isNamed = ({ factor, symbols: [only, ...others] }: Size): boolean =>
  factor === 1 &&
  only !== undefined &&
  others.length === 0 &&
  [namedMark, placeMark].some((own) => only.startsWith(own));

const isLeast = (part = "", length = ""): boolean =>
  part.startsWith(leastMark) && part.slice(leastMark.length).replace(/^\d+ of /, "") === length;

/** Whether a length may come to nothing. No request of an empty tensor is joined, so those of inputs never do. */
export const mayBeZero = ({ factor, symbols }: Size): boolean =>
  factor === 0 || symbols.some((symbol) => symbol.startsWith(madeMark));

export const sameSize = (a: Size, b: Size): boolean =>
  a.factor === b.factor && a.symbols.length === b.symbols.length && a.symbols.every((s, i) => s === b.symbols[i]);

export function times(a: Size, b: Size): Size {
  const factor = a.factor * b.factor;
  return { factor, symbols: factor === 0 ? [] : [...a.symbols, ...b.symbols].sort() };
}

export const product = (sizes: readonly Size[]): Size => sizes.reduce(times, one);

/** `a / b` where that is whole for certain; else null. */
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
