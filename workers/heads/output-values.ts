import { fromFloat16Bits, toFloat16Bits } from "@millrace/shared/tensors/float16.js";
import type { Tensor } from "onnxruntime-node";

/** The numbers that a head reads of an output tensor: `width` for each row. */
export interface OutputValues {
  values: ArrayLike<number>;
  /** Start of the wanted row. */
  from: number;
}

const converted = new WeakMap<Tensor, ArrayLike<number>>();

/**
 * The numbers of one row of an output [rows, width], or [rows] where width is 1: row `range[0]`, or the only one where
 * `range` is null. A sentence where the tensor has another shape or holds no numbers.
 */
export function outputValues(
  tensor: Tensor | undefined,
  name: string,
  width: number,
  range: readonly [number, number] | null,
): OutputValues | string {
  if (tensor === undefined) return `the model gave no output "${name}"`;
  const { dims } = tensor;
  const rows = range === null ? 1 : (dims[0] ?? 0);
  const fits = dims[0] === rows && (dims.length === 2 ? dims[1] === width : dims.length === 1 && width === 1);
  if (!fits) {
    const wanted = width === 1 ? `[${rows}] or [${rows}, 1]` : `[${rows}, ${width}]`;
    return `output "${name}" has the shape [${dims.join(", ")}], expected ${wanted}`;
  }
  const values = numbersOf(tensor);
  if (values === null) return `output "${name}" holds no numbers, but ${tensor.type}`;
  return { values, from: (range?.[0] ?? 0) * width };
}

/** The elements of a tensor as numbers; null for strings and booleans. */
export function numbersOf(tensor: Tensor): ArrayLike<number> | null {
  if (tensor.type === "float32" || tensor.type === "float64") return tensor.data as Float32Array;
  const before = converted.get(tensor);
  if (before !== undefined) return before;
  const { data, type } = tensor;
  let values: ArrayLike<number> | null = null;
  if (type === "float16") {
    values = data instanceof Uint16Array ? Float32Array.from(data, fromFloat16Bits) : (data as unknown as Float32Array);
  } else if (type === "int64" || type === "uint64") values = Float64Array.from(data as BigInt64Array, Number);
  else if (type !== "string" && type !== "bool") values = data as unknown as ArrayLike<number>;
  if (values !== null) converted.set(tensor, values);
  return values;
}

/** A number rounded to the tensor's dtype, so that a score equal to the threshold reaches it. */
export function roundToType(value: number, type: string): number {
  if (type === "float16") return fromFloat16Bits(toFloat16Bits(value));
  return type === "float32" ? Math.fround(value) : value;
}
