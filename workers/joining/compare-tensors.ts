import { fromFloat16Bits } from "@millrace/shared/tensors/float16.js";
import type { Tensor } from "onnxruntime-node";

/** Answers are equal within this share of the largest number in the answers of inputs of the same kind. */
export const tolerance = 1e-5;

/** Elements of one output for one input. */
export interface Elements {
  shape: number[];
  length: number;
  at(i: number): number | bigint | string | boolean;
  isFloat: boolean;
}

/** The elements of rows [from, to) of a tensor; of all rows where `range` is null. */
export function elementsOf(tensor: Tensor, range: readonly [number, number] | null): Elements {
  const shape = [...tensor.dims];
  const inner = shape.slice(1).reduce((size, length) => size * length, 1);
  if (range !== null) shape[0] = range[1] - range[0];
  const begin = (range?.[0] ?? 0) * inner;
  const data = tensor.data as ArrayLike<number | bigint | string>;
  const halves = tensor.type === "float16" && tensor.data instanceof Uint16Array;
  return {
    shape,
    length: shape.reduce((size, length) => size * length, 1),
    at: (i) => (halves ? fromFloat16Bits(data[begin + i] as number) : (data[begin + i] as number | bigint | string)),
    isFloat: tensor.type.startsWith("float"),
  };
}

/** The largest magnitude among the finite elements. */
export function magnitudeOf({ at, isFloat, length }: Elements): number {
  let largest = 0;
  if (!isFloat) return largest;
  for (let i = 0; i < length; i++) {
    const size = Math.abs(at(i) as number);
    if (size > largest && size < Number.POSITIVE_INFINITY) largest = size;
  }
  return largest;
}

/**
 * The distance of two outputs: the largest difference of floats; infinite where shapes, elements of other types, or the
 * places of non-finite floats differ.
 */
export function distance(a: Elements, b: Elements): number {
  if (a.length !== b.length || a.shape.length !== b.shape.length) return Number.POSITIVE_INFINITY;
  if (a.shape.some((length, d) => length !== b.shape[d])) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a.at(i), b.at(i)];
    if (Object.is(x, y) || x === y) continue;
    if (!a.isFloat) return Number.POSITIVE_INFINITY;
    const apart = Math.abs((x as number) - (y as number));
    if (!(apart < Number.POSITIVE_INFINITY)) return Number.POSITIVE_INFINITY;
    largest = Math.max(largest, apart);
  }
  return largest;
}
