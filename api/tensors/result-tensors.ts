import type { Announcement, TensorSpec } from "@millrace/shared/models/announcement.js";
import { packElements } from "@millrace/shared/packing/pack-elements.js";
import type { StoredResult } from "@millrace/shared/predictions/prediction.js";
import { readBlob } from "@millrace/shared/redis/blob.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type PackedTensor, unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import type { KnownModel } from "../models/model-directory.js";

/**
 * The output tensors of a prediction that has succeeded: as the bytes that the model gave, where it was submitted as
 * tensors; else as far as its JSON has them. Throws `not_acceptable` where that has none.
 */
export async function resultTensors(
  redis: RedisClient,
  model: KnownModel,
  result: StoredResult,
): Promise<PackedTensor[]> {
  const { tensors } = result;
  if (tensors === undefined) return tensorsInJson(model, result.json);
  if ("pack" in tensors) return unpackTensors(Buffer.from(tensors.pack, "base64"));
  return unpackTensors(await readOutput(redis, model, tensors));
}

/** The bytes of an output that is a blob. */
async function readOutput(
  redis: RedisClient,
  { keys }: KnownModel,
  { blob, bytes }: { blob: string; bytes: number },
): Promise<Buffer> {
  const pack = await readBlob(redis, keys, blob, bytes);
  if (pack === null) throw new ServiceError("prediction_not_found", "The prediction's output has expired.");
  return pack;
}

interface WrittenPrediction {
  version: string;
  output: Record<string, unknown>;
}

function tensorsInJson(model: KnownModel, json: string): PackedTensor[] {
  const { output, version } = JSON.parse(json) as WrittenPrediction;
  const announcement = model.versions.get(version)?.announcement;
  const { output: head } = announcement?.manifest ?? {};
  if (announcement === undefined || head === undefined) throw noTensors();
  switch (head.head) {
    case "raw":
      return announcement.outputs.map((spec) => tensorOf(spec, own(output, spec.name)));
    case "classifier": {
      const probabilities = output.probabilities as Record<string, number>;
      return [
        tensorOf(specOf(announcement, head.probabilities), [head.labels.map((label) => own(probabilities, label))]),
      ];
    }
    case "regressor": {
      const spec = specOf(announcement, head.value);
      return [tensorOf(spec, spec.shape.length === 1 ? [output.value] : [[output.value]])];
    }
    // Their JSON lacks a part of the tensors.
    case "multi_label":
    case "anomaly":
    case "ensemble":
      throw noTensors();
  }
}

/** A member, which may be called as what every object inherits. */
const own = <T>(record: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(record, name) ? record[name] : undefined;

const specOf = ({ outputs }: Announcement, name: string): TensorSpec =>
  outputs.find((spec) => spec.name === name) ?? unavailable();

/**
 * Nested arrays as the tensor that they were written from; what lies below an empty dimension is as declared, or empty.
 */
function tensorOf({ dtype, name, shape: declared }: TensorSpec, nested: unknown): PackedTensor {
  const shape: number[] = [];
  let values = [nested];
  for (const length of declared) {
    const first = values[0];
    if (first === undefined) shape.push(typeof length === "number" ? length : 0);
    else if (!Array.isArray(first)) return unavailable();
    else {
      shape.push(first.length);
      values = values.flat();
    }
  }
  let whole = true;
  const bytes = packElements(
    values,
    dtype,
    () => {
      whole = false;
    },
    { bigAsText: true },
  );
  return whole ? { name, dtype, shape, bytes } : unavailable();
}

const noTensors = () => new ServiceError("not_acceptable", "This prediction has no tensors.");

function unavailable(): never {
  throw noTensors();
}
