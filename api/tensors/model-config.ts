import type { Announcement, TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Dtype } from "@millrace/shared/tensors/dtype.js";
import { joiningOf, type KnownModel } from "../models/model-directory.js";
import { datatypeOf, shapeOf } from "./datatypes.js";
import { inputSpecs } from "./input-tensors.js";

/** A tensor in a configuration. Where it has no dimension to tell, it tells one of length 1, reshaped to none. */
interface TensorConfig {
  name: string;
  data_type: string;
  dims: number[];
  reshape?: { shape: number[] };
}

/**
 * A version as Triton's model configuration tells it. `max_batch_size` is the most rows of a run where requests share
 * runs, and `dims` are then without the first dimension, as Triton has them; else it is 0 and `dims` are whole.
 */
export function modelConfig(model: KnownModel, announcement: Announcement): object {
  const inputs = inputSpecs(announcement);
  const { manifest, outputs } = announcement;
  const isJoined = joiningOf(model, announcement).mode !== "off";
  const isBatched = isJoined && [...inputs, ...outputs].every((spec) => shapeOf(spec)[0] === -1);
  const tensor = (spec: TensorSpec) => tensorConfig(spec, isBatched);
  const { max_batch_rows: rows, max_delay_ms: delayMs } = manifest.batching;
  return {
    name: model.name,
    platform: "onnxruntime_onnx",
    backend: "onnxruntime",
    version_policy: { specific: { versions: [...model.versions.keys()].map(Number) } },
    max_batch_size: isBatched ? rows : 0,
    input: inputs.map((spec) => ({
      ...tensor(spec),
      format: "FORMAT_NONE",
      is_shape_tensor: false,
      allow_ragged_batch: false,
      optional: false,
    })),
    output: outputs.map((spec) => ({ ...tensor(spec), label_filename: "", is_shape_tensor: false })),
    batch_input: [],
    batch_output: [],
    instance_group: [],
    default_model_filename: "model.onnx",
    cc_model_filenames: {},
    metric_tags: {},
    parameters: {},
    model_warmup: [],
    ...(isBatched && { dynamic_batching: { preferred_batch_size: [], max_queue_delay_microseconds: delayMs * 1000 } }),
  };
}

function tensorConfig(spec: TensorSpec, isBatched: boolean): TensorConfig {
  const shape = shapeOf(spec);
  const dims = isBatched ? shape.slice(1) : shape;
  const named = { name: spec.name, data_type: configType(spec.dtype) };
  return dims.length === 0 ? { ...named, dims: [1], reshape: { shape: [] } } : { ...named, dims };
}

/** Triton's configuration has names of its own for text alone. */
const configType = (dtype: Dtype): string => (dtype === "string" ? "TYPE_STRING" : `TYPE_${datatypeOf[dtype]}`);
