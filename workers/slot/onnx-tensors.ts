import { type Dtype, elementBytes } from "@millrace/shared/tensors/dtype.js";
import { type PackedTensor, packStrings, unpackStrings } from "@millrace/shared/tensors/tensor-pack.js";
import { Tensor } from "onnxruntime-node";

/** ONNX Runtime tensors for one run of several inputs, joined along the first dimension in order. */
export function toOnnxTensors(inputs: readonly (readonly PackedTensor[])[]): Record<string, Tensor> {
  // Without a prototype, so that an input may have any name.
  const feeds: Record<string, Tensor> = Object.create(null);
  (inputs[0] as readonly PackedTensor[]).forEach((first, t) => {
    const parts = inputs.map((tensors) => tensors[t] as PackedTensor);
    const shape = [...first.shape];
    if (parts.length > 1) shape[0] = parts.reduce((rows, part) => rows + (part.shape[0] as number), 0);
    if (first.dtype === "string") {
      feeds[first.name] = new Tensor(
        "string",
        parts.flatMap((part) => unpackStrings(part.bytes)),
        shape,
      );
      return;
    }
    const size = elementBytes[first.dtype];
    const { buffer, byteOffset, length } = first.bytes;
    // Typed arrays need alignment, which bytes in a frame mostly lack.
    if (parts.length === 1 && byteOffset % size === 0) {
      const elements = new arrayOf[first.dtype](buffer as ArrayBuffer, byteOffset, length / size);
      feeds[first.name] = new Tensor(first.dtype, elements as never, shape);
      return;
    }
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.bytes.length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part.bytes, at);
      at += part.bytes.length;
    }
    const elements = new arrayOf[first.dtype](bytes.buffer, 0, bytes.length / size);
    feeds[first.name] = new Tensor(first.dtype, elements as never, shape);
  });
  return feeds;
}

/** A run's output tensors, or rows [from, to) of them, as raw bytes in the order declared by the file. */
export function outputTensors(
  names: readonly string[],
  outputs: Readonly<Record<string, Tensor>>,
  range: readonly [number, number] | null,
): PackedTensor[] {
  return names.map((name) => {
    const tensor = outputs[name] as Tensor;
    const shape = [...tensor.dims];
    const inner = shape.slice(1).reduce((size, dimension) => size * dimension, 1);
    if (range !== null) shape[0] = range[1] - range[0];
    const from = (range?.[0] ?? 0) * inner;
    const count = shape.reduce((size, dimension) => size * dimension, 1);
    const dtype = tensor.type as Dtype;
    if (dtype === "string") {
      const values = tensor.data as string[];
      return { name, dtype, shape, bytes: packStrings(values.slice(from, from + count)) };
    }
    const { buffer, byteOffset } = tensor.data as Uint8Array;
    const size = elementBytes[dtype];
    return { name, dtype, shape, bytes: new Uint8Array(buffer, byteOffset + from * size, count * size) };
  });
}

// Newer JavaScript runtimes have a Float16Array, and ONNX Runtime then wants it instead of raw bits.
const float16Array = (globalThis as unknown as { Float16Array?: Uint16ArrayConstructor }).Float16Array ?? Uint16Array;

const arrayOf: Record<
  Exclude<Dtype, "string">,
  new (
    buffer: ArrayBuffer,
    offset: number,
    length: number,
  ) => ArrayBufferView
> = {
  float32: Float32Array,
  float64: Float64Array,
  float16: float16Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};
