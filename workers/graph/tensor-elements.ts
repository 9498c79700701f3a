import protobuf from "protobufjs";
import type { RawTensor } from "./onnx-schema.js";

/** A tensor with more elements is not a list of dimensions, and its elements are not read. */
const mostElements = 64;

/** The elements of a short list of numbers inside the file; null for any other tensor. */
export function elementsOf(tensor: RawTensor, dims: readonly number[]): number[] | null {
  const count = dims.reduce((size, dimension) => size * dimension, 1);
  if (count > mostElements || dims.length > 1) return null;
  const read = readers[tensor.data_type];
  if (read === undefined) return null;
  const { raw_data: raw } = tensor;
  const listed = tensor[read.list].flatMap((packed) => read.unpack(packed));
  // Only one of the two fields should be set; ONNX Runtime prefers the raw one.
  if (raw.length > 0) return raw.length === count * read.bytes ? fixedWidth(raw, read.bytes, read.at) : null;
  return listed.length === count ? listed : null;
}

interface ElementReader {
  bytes: number;
  at(view: DataView, at: number): number;
  list: "float_data" | "int32_data" | "int64_data" | "double_data";
  unpack(packed: Uint8Array): number[];
}

function fixedWidth(bytes: Uint8Array, width: number, at: ElementReader["at"]): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: Math.floor(bytes.length / width) }, (_, i) => at(view, i * width));
}

function varints(packed: Uint8Array): number[] {
  const reader = protobuf.Reader.create(packed);
  const values: number[] = [];
  while (reader.pos < reader.len) values.push(Number(reader.int64()));
  return values;
}

const float32At = (view: DataView, at: number) => view.getFloat32(at, true);
const float64At = (view: DataView, at: number) => view.getFloat64(at, true);

/** By data type of `onnx.proto`: float, int32, int64, bool, double. */
const readers: Record<number, ElementReader | undefined> = {
  1: { bytes: 4, at: float32At, list: "float_data", unpack: (packed) => fixedWidth(packed, 4, float32At) },
  6: { bytes: 4, at: (view, at) => view.getInt32(at, true), list: "int32_data", unpack: varints },
  7: { bytes: 8, at: (view, at) => Number(view.getBigInt64(at, true)), list: "int64_data", unpack: varints },
  9: { bytes: 1, at: (view, at) => view.getUint8(at), list: "int32_data", unpack: varints },
  11: { bytes: 8, at: float64At, list: "double_data", unpack: (packed) => fixedWidth(packed, 8, float64At) },
};
