import { type Dtype, dtypes, elementBytes } from "./dtype.js";

/** A named tensor as bytes: little-endian elements in row-major order; strings as 4-byte length and UTF-8 each. */
export interface PackedTensor {
  name: string;
  dtype: Dtype;
  shape: number[];
  bytes: Uint8Array;
}

/** First byte of an input whose output is wanted as a pack, too; a count follows. */
const tensorsWanted = 0xff;

/**
 * Named tensors in one buffer, which is how an input travels from the API through Redis to a slot, and how the output
 * of one that was submitted as tensors travels back.
 *
 * Layout, little-endian: 255 where the output is wanted as a pack, else nothing; tensor count (u8, at most 254); then
 * for each tensor: name length (u8), name, data type (u8, position in `dtypes`), rank (u8), dimensions (u32 each), byte
 * length (u32), bytes.
 */
export function packTensors(tensors: readonly PackedTensor[], { wantsTensors = false } = {}): Buffer {
  let size = wantsTensors ? 2 : 1;
  const names = tensors.map((tensor) => Buffer.from(tensor.name));
  tensors.forEach((tensor, i) => {
    size += 7 + (names[i] as Buffer).length + 4 * tensor.shape.length + tensor.bytes.length;
  });
  const out = Buffer.allocUnsafe(size);
  let at = wantsTensors ? out.writeUInt8(tensorsWanted, 0) : 0;
  at = out.writeUInt8(tensors.length, at);
  tensors.forEach((tensor, i) => {
    const name = names[i] as Buffer;
    at = out.writeUInt8(name.length, at);
    at += name.copy(out, at);
    at = out.writeUInt8(dtypes.indexOf(tensor.dtype), at);
    at = out.writeUInt8(tensor.shape.length, at);
    for (const dimension of tensor.shape) at = out.writeUInt32LE(dimension, at);
    at = out.writeUInt32LE(tensor.bytes.length, at);
    out.set(tensor.bytes, at);
    at += tensor.bytes.length;
  });
  return out;
}

/** A pack of one tensor, in two parts: what stands before its bytes, and its bytes, which are not copied. */
export function packParts(tensor: PackedTensor): [head: Buffer, bytes: Uint8Array] {
  const head = packTensors([{ ...tensor, bytes: new Uint8Array(0) }]);
  head.writeUInt32LE(tensor.bytes.length, head.length - 4);
  return [head, tensor.bytes];
}

/** Whether an input was submitted as tensors, so that its output is wanted as a pack, not only as JSON. */
export const wantsTensors = (pack: Uint8Array): boolean => pack[0] === tensorsWanted;

/** The tensors in a pack, as views of it. Throws a RangeError when the lengths in it do not add up. */
export function unpackTensors(pack: Buffer): PackedTensor[] {
  const begin = wantsTensors(pack) ? 1 : 0;
  let at = begin + 1;
  const tensors: PackedTensor[] = [];
  for (let i = pack.readUInt8(begin); i > 0; i--) {
    const nameEnd = at + 1 + pack.readUInt8(at);
    const name = pack.toString("utf8", at + 1, nameEnd);
    const dtype = dtypes[pack.readUInt8(nameEnd)];
    const rank = pack.readUInt8(nameEnd + 1);
    at = nameEnd + 2;
    const shape: number[] = [];
    let elements = 1;
    for (let d = 0; d < rank; d++, at += 4) {
      const dimension = pack.readUInt32LE(at);
      shape.push(dimension);
      elements *= dimension;
    }
    const length = pack.readUInt32LE(at);
    at += 4;
    const known = dtype !== undefined && (dtype === "string" || length === elements * elementBytes[dtype]);
    if (!known || at + length > pack.length) throw new RangeError(`tensor pack is damaged at byte ${at}`);
    tensors.push({ name, dtype, shape, bytes: pack.subarray(at, at + length) });
    at += length;
  }
  if (at !== pack.length) throw new RangeError("tensor pack has bytes left over");
  return tensors;
}

/** Strings as length-prefixed UTF-8, in order. */
export function packStrings(values: readonly string[]): Buffer {
  const parts: Buffer[] = [];
  for (const value of values) {
    const text = Buffer.from(value);
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32LE(text.length);
    parts.push(length, text);
  }
  return Buffer.concat(parts);
}

/** The strings in length-prefixed UTF-8. Throws a RangeError when a length points beyond the end. */
export function unpackStrings(bytes: Uint8Array): string[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values: string[] = [];
  for (let at = 0; at < buffer.length; ) {
    const end = at + 4 + buffer.readUInt32LE(at);
    if (end > buffer.length) throw new RangeError("string tensor is damaged");
    values.push(buffer.toString("utf8", at + 4, end));
    at = end;
  }
  return values;
}
