import { fromFloat16Bits } from "@millrace/shared/tensors/float16.js";
import type { Tensor } from "onnxruntime-node";

/**
 * A tensor, or rows [from, to) of it, as nested arrays in JSON. 64-bit integers beyond 2^53 become decimal strings;
 * floats without a JSON number become "NaN", "Infinity" and "-Infinity", as in Protocol Buffers' JSON.
 */
export function tensorJson(tensor: Tensor, range: readonly [number, number] | null): string {
  const shape = [...tensor.dims];
  const { data } = tensor;
  const bits16 = tensor.type === "float16" && data instanceof Uint16Array;
  const element = (i: number): string => {
    const value = data[i] as unknown;
    if (typeof value === "string") return JSON.stringify(value);
    if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? String(value) : `"${value}"`;
    if (tensor.type === "bool") return value === 0 || value === false ? "false" : "true";
    const number = bits16 ? fromFloat16Bits(value as number) : (value as number);
    // JSON has a minus zero, but `String` drops it.
    if (Object.is(number, -0)) return "-0.0";
    return Number.isFinite(number) ? String(number) : `"${number}"`;
  };
  const inner = shape.slice(1).reduce((size, dimension) => size * dimension, 1);
  if (range !== null) shape[0] = range[1] - range[0];
  return nest(shape, 0, (range?.[0] ?? 0) * inner, element);
}

function nest(shape: readonly number[], d: number, offset: number, element: (i: number) => string): string {
  if (d === shape.length) return element(offset);
  const stride = shape.slice(d + 1).reduce((size, dimension) => size * dimension, 1);
  let json = "[";
  for (let i = 0; i < (shape[d] as number); i++) {
    json += (i === 0 ? "" : ",") + nest(shape, d + 1, offset + i * stride, element);
  }
  return `${json}]`;
}
