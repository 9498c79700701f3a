import { type Dtype, elementBytes } from "@millrace/shared/tensors/dtype.js";
import { type PackedTensor, packStrings } from "@millrace/shared/tensors/tensor-pack.js";
import type { Tensor } from "onnxruntime-node";

/** A run's output tensors, or rows [from, to) of them, as the bytes they are and in the order that the file declares. */
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
