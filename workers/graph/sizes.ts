/**
 * A length of a dimension, or an element of a tensor that holds lengths: a whole number times symbols. Two are equal for
 * certain where number and symbols are the same. `rows` stands for how many rows a run has; every other symbol is
 * something that company does not change.
 */
export interface Size {
  readonly factor: number;
  /** Sorted; one that stands twice is squared. */
  readonly symbols: readonly string[];
}

const rowsSymbol = "rows";
/** Symbols that begin so are lengths of dimensions, hence never negative. */
const lengthMark = "length of ";

export const one: Size = { factor: 1, symbols: [] };
export const rowCount: Size = { factor: 1, symbols: [rowsSymbol] };

export const sizeOf = (factor: number): Size => ({ factor, symbols: [] });

/** The length of a dimension that is known by its name only. */
export const lengthNamed = (name: string): Size => ({ factor: 1, symbols: [`${lengthMark}${name}`] });

/** Some whole number, which may be negative. */
export const numberNamed = (name: string): Size => ({ factor: 1, symbols: [name] });

/** The number, where it is one; else null. */
export const numberIn = ({ factor, symbols }: Size): number | null =>
  symbols.length === 0 || factor === 0 ? factor : null;

export const isOne = (size: Size): boolean => numberIn(size) === 1;

export const dependsOnRows = ({ symbols }: Size): boolean => symbols.includes(rowsSymbol);

export const isNeverNegative = ({ factor, symbols }: Size): boolean =>
  factor >= 0 && symbols.every((symbol) => symbol === rowsSymbol || symbol.startsWith(lengthMark));

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
