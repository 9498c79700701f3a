import { type Fixed, fixed, type Operation, UnprovenError } from "./abstract-tensor.js";
import {
  dependsOnRows,
  dividedBy,
  isModest,
  isNeverNegative,
  isOne,
  numberIn,
  type Size,
  sameSize,
  sizeOf,
  times,
} from "./sizes.js";

/** Result of an operation on two elements; null where it is unknown. */
type Reckon = (a: Size, b: Size) => Size | null;

const both =
  (reckon: (a: number, b: number) => number): Reckon =>
  (a, b) => {
    const [x, y] = [numberIn(a), numberIn(b)];
    if (x === null || y === null) return null;
    return within(sizeOf(reckon(x, y)));
  };

const within = (size: Size): Size | null => (isModest(size) ? size : null);

const isZero = (size: Size): boolean => numberIn(size) === 0;

const compare = (holds: (a: number, b: number) => boolean): Reckon => both((a, b) => (holds(a, b) ? 1 : 0));

const equal: Reckon = (a, b) => {
  if (sameSize(a, b)) return sizeOf(1);
  // A length is never negative, unlike the -1 of `Reshape`.
  const differ = (x: Size, y: Size) => isNeverNegative(x) && (numberIn(y) ?? 0) < 0;
  return differ(a, b) || differ(b, a) ? sizeOf(0) : compare((x, y) => x === y)(a, b);
};

const reckoning: Record<string, Reckon> = {
  Add: (a, b) => (isZero(a) ? b : isZero(b) ? a : both((x, y) => x + y)(a, b)),
  Sub: (a, b) => (isZero(b) ? a : both((x, y) => x - y)(a, b)),
  Mul: (a, b) => within(times(a, b)),
  Div: (a, b) => (isOne(b) ? a : dividedBy(a, b)),
  Equal: equal,
  Greater: compare((a, b) => a > b),
  GreaterOrEqual: compare((a, b) => a >= b),
  Less: compare((a, b) => a < b),
  LessOrEqual: compare((a, b) => a <= b),
  And: compare((a, b) => a !== 0 && b !== 0),
  Or: compare((a, b) => a !== 0 || b !== 0),
};

/** The elements of short fixed lists, repeated to the length of the longest; null for any other input. */
function listed(operation: Operation): { dims: Fixed["dims"]; lists: Size[][] } | null {
  const values = operation.inputs.filter((value) => value !== null);
  if (
    !values.every((value): value is Fixed & { elements: Size[] } => value.kind === "fixed" && value.elements !== null)
  )
    return null;
  const length = Math.max(...values.map(({ elements }) => elements.length));
  const longest = values.find(({ dims, elements }) => elements.length === length && dims?.length === 1) ?? values[0];
  if (values.some(({ elements }) => elements.length !== length && elements.length !== 1)) return null;
  const lists = values.map(({ elements }) =>
    Array.from({ length }, (_, i) => elements[elements.length === 1 ? 0 : i] as Size),
  );
  return { dims: longest?.dims ?? null, lists };
}

/** An unknown number. Throws where it depends on the number of rows. */
function someNumber(operation: Operation, from: readonly Size[]): Size {
  if (from.some(dependsOnRows)) throw new UnprovenError("it computes with the number of rows");
  return operation.newNumber();
}

const binary =
  (reckon: Reckon): ((operation: Operation) => Fixed | null) =>
  (operation) => {
    const found = listed(operation);
    if (found === null) return null;
    const [a, b] = found.lists as [Size[], Size[]];
    return fixed(
      found.dims,
      a.map((x, i) => reckon(x, b[i] as Size) ?? someNumber(operation, [x, b[i] as Size])),
    );
  };

/** Picks from one list or the other, where the condition is known. */
const where = (operation: Operation): Fixed | null => {
  const found = listed(operation);
  if (found === null) return null;
  const [condition, yes, no] = found.lists as [Size[], Size[], Size[]];
  const elements = condition.map((holds, i) => {
    const [a, b] = [yes[i] as Size, no[i] as Size];
    const number = numberIn(holds);
    return number === null ? someNumber(operation, [holds, a, b]) : number === 0 ? b : a;
  });
  return fixed(found.dims, elements);
};

/** Operators on lists of lengths; null for other inputs. */
export const lengthRules: Record<string, ((operation: Operation) => Fixed | null) | undefined> = {
  ...Object.fromEntries(Object.entries(reckoning).map(([name, reckon]) => [name, binary(reckon)])),
  Where: where,
};
