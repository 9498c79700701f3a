import { type Dtype, elementBytes, integerRange } from "../tensors/dtype.js";
import { toFloat16Bits } from "../tensors/float16.js";
import { packStrings } from "../tensors/tensor-pack.js";
import { describe } from "./packer.js";

const decimal = /^-?\d{1,20}$/;

/**
 * Elements as little-endian bytes; `complain` is called with the position of each that the type cannot hold. Floats may
 * also be the strings that JSON output has in place of numbers: "NaN", "Infinity" and "-Infinity"; with `bigAsText`,
 * whole numbers that are too long for JSON, too.
 */
export function packElements(
  values: readonly unknown[],
  dtype: Dtype,
  complain: (index: number, detail: string) => void,
  { bigAsText = false } = {},
): Uint8Array {
  if (dtype === "string") {
    let whole = true;
    for (const [i, value] of values.entries()) {
      const fault = stringFault(value);
      if (fault === null) continue;
      whole = false;
      complain(i, `expected a string, got ${fault}`);
    }
    return whole ? packStrings(values as string[]) : new Uint8Array(0);
  }
  const size = elementBytes[dtype];
  const bytes = new Uint8Array(values.length * size);
  const view = new DataView(bytes.buffer);
  const write = elementWriter[dtype];
  const isFloat = dtype === "float32" || dtype === "float64" || dtype === "float16";
  values.forEach((value, i) => {
    const text = isFloat && typeof value === "string" ? value : "";
    if (notFinite.test(text)) setFloat[dtype as keyof typeof setFloat](view, i * size, Number(text));
    else {
      const fault = write(view, i * size, bigAsText && wholeNumber.test(text) ? Number(text) : value);
      if (fault !== null) complain(i, fault);
    }
  });
  return bytes;
}

const notFinite = /^(?:NaN|-?Infinity)$/;
const wholeNumber = /^-?\d{16,}$/;

/** ONNX Runtime cuts strings at NUL, and UTF-8 has no lone surrogates: such strings would silently change. */
function stringFault(value: unknown): string | null {
  if (typeof value !== "string") return describe(value);
  if (value.includes("\0")) return "one with NUL";
  return /\p{Surrogate}/u.test(value) ? "one with half a surrogate pair" : null;
}

type Write = (view: DataView, at: number, value: unknown) => string | null;

const asInteger = (dtype: Dtype, value: unknown): bigint | string => {
  const [min, max] = integerRange[dtype] as readonly [bigint, bigint];
  if (typeof value === "number") {
    if (!Number.isInteger(value)) return `expected an integer, got ${describe(value)}`;
    if (!Number.isSafeInteger(value)) return "an integer beyond 2^53 must be a decimal string to be exact";
  } else if (typeof value !== "string" || !decimal.test(value)) {
    return `expected an integer, got ${describe(value)}`;
  }
  const integer = BigInt(value);
  return integer < min || integer > max ? `${integer} is beyond the range of ${dtype}` : integer;
};

const integers = (dtype: Dtype, set: (view: DataView, at: number, value: bigint) => void): Write => {
  return (view, at, value) => {
    const integer = asInteger(dtype, value);
    if (typeof integer === "string") return integer;
    set(view, at, integer);
    return null;
  };
};

const floats = (dtype: Dtype, limit: number, set: (view: DataView, at: number, value: number) => void): Write => {
  return (view, at, value) => {
    if (typeof value !== "number") return `expected a number, got ${describe(value)}`;
    if (!(Math.abs(value) < limit)) return `${describe(value)} is beyond the range of ${dtype}`;
    set(view, at, value);
    return null;
  };
};

/** The first magnitude that rounds to infinity in each float type. */
const float32Limit = 2 ** 128 - 2 ** 103;
const float16Limit = 65520;

const setFloat = {
  float32: (view: DataView, at: number, value: number) => view.setFloat32(at, value, true),
  float64: (view: DataView, at: number, value: number) => view.setFloat64(at, value, true),
  float16: (view: DataView, at: number, value: number) => view.setUint16(at, toFloat16Bits(value), true),
};

const elementWriter: Record<Exclude<Dtype, "string">, Write> = {
  float32: floats("float32", float32Limit, setFloat.float32),
  float64: floats("float64", Number.POSITIVE_INFINITY, setFloat.float64),
  float16: floats("float16", float16Limit, setFloat.float16),
  int8: integers("int8", (view, at, value) => view.setInt8(at, Number(value))),
  int16: integers("int16", (view, at, value) => view.setInt16(at, Number(value), true)),
  int32: integers("int32", (view, at, value) => view.setInt32(at, Number(value), true)),
  int64: integers("int64", (view, at, value) => view.setBigInt64(at, value, true)),
  uint8: integers("uint8", (view, at, value) => view.setUint8(at, Number(value))),
  uint16: integers("uint16", (view, at, value) => view.setUint16(at, Number(value), true)),
  uint32: integers("uint32", (view, at, value) => view.setUint32(at, Number(value), true)),
  uint64: integers("uint64", (view, at, value) => view.setBigUint64(at, value, true)),
  bool: (view, at, value) => {
    if (typeof value !== "boolean") return `expected true or false, got ${describe(value)}`;
    view.setUint8(at, value ? 1 : 0);
    return null;
  },
};
