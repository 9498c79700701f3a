import { featuresOf } from "@millrace/shared/packing/pack-tabular.js";
import { predictionJobSchema } from "@millrace/shared/predictions/job.js";
import { type PackedTensor, unpackStrings, unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import type { ModelDirectory } from "../models/model-directory.js";

const shownElements = 1000;

/** A job's data as a person reads it: names for the short fields, and the packed input as features or tensors. */
export function readableJob(data: unknown, directory: ModelDirectory, model: string): unknown {
  const parsed = predictionJobSchema.safeParse(data);
  if (!parsed.success) return data;
  const { b, e, m, mt, o, q, r, ro, ver, x } = parsed.data;
  return {
    owner: o,
    version: ver,
    input: b === undefined ? readableInput(x, directory, model, ver) : { bytes: b },
    ...(e !== undefined && { expires_at: new Date(e).toISOString() }),
    // As text where the numbers in it would be shown as others.
    ...(m !== undefined && { metadata: mt ?? m }),
    ...(r !== undefined && { request_id: r }),
    ...(ro !== undefined && { retry_of: ro }),
    ...(q !== undefined && { arrival: q }),
  };
}

function readableInput(base64: string, directory: ModelDirectory, model: string, version: string): unknown {
  const tensors = unpackTensors(Buffer.from(base64, "base64"));
  const known = directory.all().find(({ name }) => name === model);
  const manifest = known?.versions.get(version)?.announcement.manifest;
  const [first] = tensors;
  if (manifest === undefined || first === undefined) return readableTensors(tensors);
  switch (manifest.kind) {
    case "tabular": {
      const values = elements(first);
      return Object.fromEntries(featuresOf(manifest).map(({ name }, i) => [name, values[i]]));
    }
    case "text": {
      const [text, pair] = elements(first);
      return pair === undefined ? text : { text, pair };
    }
    case "image":
      return `an image of ${first.bytes.length} bytes`;
    case "tensor":
      break;
    default:
      manifest satisfies never;
  }
  return readableTensors(tensors);
}

function readableTensors(tensors: readonly PackedTensor[]): Record<string, unknown> {
  return Object.fromEntries(
    tensors.map((tensor) => [
      tensor.name,
      { datatype: tensor.dtype, shape: tensor.shape, data: elements(tensor).slice(0, shownElements) },
    ]),
  );
}

/** The elements of a packed tensor; 64-bit integers as decimal strings, half floats as their bits. */
function elements({ bytes, dtype }: PackedTensor): unknown[] {
  if (dtype === "string") return unpackStrings(bytes);
  const buffer = new Uint8Array(bytes).buffer;
  if (dtype === "int64") return Array.from(new BigInt64Array(buffer), String);
  if (dtype === "uint64") return Array.from(new BigUint64Array(buffer), String);
  if (dtype === "bool") return Array.from(new Uint8Array(buffer), (value) => value !== 0);
  return Array.from(new numberArrays[dtype](buffer));
}

const numberArrays = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
};
