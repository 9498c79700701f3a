import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Dtype } from "@millrace/shared/tensors/dtype.js";

/** Each data type as the Open Inference Protocol calls it. */
export const datatypeOf: Record<Dtype, string> = {
  float32: "FP32",
  float64: "FP64",
  float16: "FP16",
  int8: "INT8",
  int16: "INT16",
  int32: "INT32",
  int64: "INT64",
  uint8: "UINT8",
  uint16: "UINT16",
  uint32: "UINT32",
  uint64: "UINT64",
  bool: "BOOL",
  string: "BYTES",
};

/** A shape as the protocol has it: -1 stands for a dynamic dimension. */
export const shapeOf = ({ shape }: TensorSpec): number[] => shape.map((d) => (typeof d === "number" ? d : -1));

/** A tensor of a model as its metadata tell. */
export const tensorMetadata = (spec: TensorSpec): object => ({
  name: spec.name,
  datatype: datatypeOf[spec.dtype],
  shape: shapeOf(spec),
});
