import type { TensorSpec } from "./announcement.js";
import { type Dtype, elementBytes, integerRange } from "./dtype.js";
import type { Complaint } from "./errors.js";
import { toFloat16Bits } from "./float16.js";
import { describe, listedComplaints, type Packer, pointerSegment } from "./packer.js";
import { type PackedTensor, packStrings, packTensors } from "./tensor-pack.js";

/**
 * Packs `{ "<tensor>": nested arrays }` into the model's input tensors, whose data types and shapes the ONNX file
 * declares: a rank-0 tensor is a bare value, a dynamic dimension takes any length, 64-bit integers may be decimal
 * strings. The rows are the first dimension where all inputs share one, else 1.
 */
export function tensorPacker(inputs: readonly TensorSpec[]): Packer {
  const known = new Set(inputs.map((spec) => spec.name));
  return (input) => {
    if (typeof input !== "object" || input === null || Array.isArray(input)) {
      return { complaints: [{ detail: `expected an object by tensor name, got ${describe(input)}`, pointer: "" }] };
    }
    const record = input as Record<string, unknown>;
    const complaints: Complaint[] = [];
    const symbols = new Map<string, number>();
    const tensors: PackedTensor[] = [];
    for (const spec of inputs) {
      const pointer = pointerSegment(spec.name);
      if (!Object.hasOwn(record, spec.name)) {
        complaints.push({ detail: `tensor "${spec.name}" is missing`, pointer });
        continue;
      }
      const reader = new TensorReader(spec, pointer, complaints);
      const tensor = reader.read(record[spec.name], symbols);
      if (tensor !== null) tensors.push(tensor);
    }
    for (const name of Object.keys(record)) {
      if (!known.has(name)) complaints.push({ detail: `tensor "${name}" is unknown`, pointer: pointerSegment(name) });
    }
    if (complaints.length > 0) return { complaints: complaints.slice(0, listedComplaints) };
    return { pack: packTensors(tensors), rows: rowsOf(tensors) };
  };
}

/** The first dimension that all tensors agree on; 1 where they do not, or where one is a scalar. */
export function rowsOf(tensors: readonly { shape: readonly number[] }[]): number {
  const rows = tensors[0]?.shape[0];
  return rows !== undefined && tensors.every((tensor) => tensor.shape[0] === rows) ? rows : 1;
}

class TensorReader {
  readonly #complaints: Complaint[];
  readonly #pointer: string;
  readonly #spec: TensorSpec;

  constructor(spec: TensorSpec, pointer: string, complaints: Complaint[]) {
    this.#spec = spec;
    this.#pointer = pointer;
    this.#complaints = complaints;
  }

  read(value: unknown, symbols: Map<string, number>): PackedTensor | null {
    const before = this.#complaints.length;
    const { name, dtype, shape: declared } = this.#spec;
    const shape: number[] = [];
    for (let level = value, d = 0; d < declared.length; d++) {
      // Below an empty dimension nothing tells the others: declared ones hold, dynamic ones are empty too.
      if (d > 0 && shape[d - 1] === 0) shape.push(typeof declared[d] === "number" ? (declared[d] as number) : 0);
      else if (!Array.isArray(level)) {
        this.#complain(`tensor "${name}" must have ${declared.length} dimensions, got ${d}`);
        return null;
      } else {
        shape.push(level.length);
        level = level[0];
      }
    }
    declared.forEach((expected, d) => {
      const actual = shape[d] as number;
      const wanted = typeof expected === "number" ? expected : expected === "" ? actual : symbols.get(expected);
      if (typeof expected === "string" && expected !== "" && wanted === undefined) symbols.set(expected, actual);
      else if (wanted !== actual) {
        this.#complain(`tensor "${name}" must have length ${wanted} in dimension ${d}, got ${actual}`);
      }
    });
    if (this.#complaints.length > before) return null;
    const values: unknown[] = [];
    this.#flatten(value, shape, 0, this.#pointer, values);
    if (this.#complaints.length > before) return null;
    const bytes = packElements(values, dtype, (i, detail) => this.#complain(detail, this.#pointerTo(i, shape)));
    return this.#complaints.length > before ? null : { name, dtype, shape, bytes };
  }

  /** Depth is bounded by the declared rank, so hostile nesting is never followed. */
  #flatten(value: unknown, shape: readonly number[], d: number, pointer: string, into: unknown[]): void {
    if (d === shape.length) {
      into.push(value);
      return;
    }
    if (!Array.isArray(value) || value.length !== shape[d]) {
      const got = Array.isArray(value) ? `${value.length}` : describe(value);
      this.#complain(`expected an array of length ${shape[d]}, got ${got}`, pointer);
      return;
    }
    if (d === shape.length - 1) {
      for (const element of value) into.push(element);
      return;
    }
    for (let i = 0; i < value.length; i++) this.#flatten(value[i], shape, d + 1, `${pointer}/${i}`, into);
  }

  #pointerTo(index: number, shape: readonly number[]): string {
    const path: number[] = [];
    let rest = index;
    for (let d = shape.length - 1; d >= 0; d--) {
      const dimension = shape[d] as number;
      path.unshift(rest % dimension);
      rest = Math.floor(rest / dimension);
    }
    return this.#pointer + path.map(pointerSegment).join("");
  }

  #complain(detail: string, pointer = this.#pointer): void {
    if (this.#complaints.length <= listedComplaints) this.#complaints.push({ detail, pointer });
  }
}

const decimal = /^-?\d{1,20}$/;

/** Elements as little-endian bytes; `complain` is called with the position of each that the type cannot hold. */
function packElements(
  values: readonly unknown[],
  dtype: Dtype,
  complain: (index: number, detail: string) => void,
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
  values.forEach((value, i) => {
    const fault = write(view, i * size, value);
    if (fault !== null) complain(i, fault);
  });
  return bytes;
}

/** ONNX Runtime cuts strings at NUL, and UTF-8 has no lone surrogates: what has either would silently be another. */
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

const elementWriter: Record<Exclude<Dtype, "string">, Write> = {
  float32: floats("float32", float32Limit, (view, at, value) => view.setFloat32(at, value, true)),
  float64: floats("float64", Number.POSITIVE_INFINITY, (view, at, value) => view.setFloat64(at, value, true)),
  float16: floats("float16", float16Limit, (view, at, value) => view.setUint16(at, toFloat16Bits(value), true)),
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
