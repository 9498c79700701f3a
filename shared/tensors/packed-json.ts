import type { Dtype } from "./dtype.js";
import { fromFloat16Bits } from "./float16.js";
import { type PackedTensor, unpackStrings } from "./tensor-pack.js";

/** Spelling of a tensor in JSON. */
export interface TensorSpelling {
  /** All elements in one array, whatever the shape. */
  flat: boolean;
  /** 64-bit integers beyond 2^53 as decimal strings; else as numbers, which not every reader reads exactly. */
  bigAsText: boolean;
}

const pieceCharacters = 32_768;

/**
 * A tensor as JSON text, in pieces. Floats that JSON has no number for become "NaN", "Infinity" and "-Infinity", as in
 * Protocol Buffers' JSON.
 */
export function* tensorText(tensor: PackedTensor, { bigAsText, flat }: TensorSpelling): Generator<string> {
  const count = tensor.shape.reduce((size, dimension) => size * dimension, 1);
  const shape = flat ? [count] : tensor.shape;
  if (count === 0) {
    yield emptyArrays(shape, 0);
    return;
  }
  // How many elements one array holds at each depth, so that a bracket stands wherever that many begin or end.
  const sizes = shape.map((_, d) => shape.slice(d).reduce((size, dimension) => size * dimension, 1));
  const elementOf = elementText(tensor, bigAsText);
  let text = "";
  for (let i = 0; i < count; i++) {
    if (i > 0) text += ",";
    for (const size of sizes) if (i % size === 0) text += "[";
    text += elementOf(i);
    for (const size of sizes) if ((i + 1) % size === 0) text += "]";
    if (text.length < pieceCharacters) continue;
    yield text;
    text = "";
  }
  yield text;
}

/** Tensors by name as one JSON object of nested arrays, in pieces: the output of a prediction that has raw outputs. */
export function* tensorsText(tensors: readonly PackedTensor[]): Generator<string> {
  let before = "{";
  for (const tensor of tensors) {
    yield `${before}${JSON.stringify(tensor.name)}:`;
    yield* tensorText(tensor, { flat: false, bigAsText: true });
    before = ",";
  }
  yield tensors.length === 0 ? "{}" : "}";
}

const emptyArrays = (shape: readonly number[], d: number): string =>
  d === shape.length ? "" : `[${new Array(shape[d]).fill(emptyArrays(shape, d + 1)).join(",")}]`;

/** A function that writes the element at a place. */
function elementText({ bytes, dtype }: PackedTensor, bigAsText: boolean): (i: number) => string {
  if (dtype === "string") {
    const values = unpackStrings(bytes);
    return (i) => JSON.stringify(values[i]);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const integer = (value: bigint) => (bigAsText && !Number.isSafeInteger(Number(value)) ? `"${value}"` : String(value));
  if (dtype === "int64") return (i) => integer(view.getBigInt64(8 * i, true));
  if (dtype === "uint64") return (i) => integer(view.getBigUint64(8 * i, true));
  if (dtype === "bool") return (i) => (view.getUint8(i) === 0 ? "false" : "true");
  const read = numberReaders[dtype];
  return (i) => numberText(read(view, i));
}

function numberText(value: number): string {
  // JSON has a minus zero, but `String` has not.
  if (Object.is(value, -0)) return "-0.0";
  return Number.isFinite(value) ? String(value) : `"${value}"`;
}

const numberReaders: Record<
  Exclude<Dtype, "string" | "int64" | "uint64" | "bool">,
  (view: DataView, i: number) => number
> = {
  float32: (view, i) => view.getFloat32(4 * i, true),
  float64: (view, i) => view.getFloat64(8 * i, true),
  float16: (view, i) => fromFloat16Bits(view.getUint16(2 * i, true)),
  int8: (view, i) => view.getInt8(i),
  int16: (view, i) => view.getInt16(2 * i, true),
  int32: (view, i) => view.getInt32(4 * i, true),
  uint8: (view, i) => view.getUint8(i),
  uint16: (view, i) => view.getUint16(2 * i, true),
  uint32: (view, i) => view.getUint32(4 * i, true),
};
