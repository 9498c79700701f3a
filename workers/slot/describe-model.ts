import type { TensorSpec } from "@millrace/shared/announcement.js";
import { isDtype } from "@millrace/shared/dtype.js";
import type { Manifest } from "@millrace/shared/manifest.js";
import type { InferenceSession } from "onnxruntime-node";

/** The tensors that an ONNX file declares. Throws for what is no tensor, with the remedy. */
export function describeTensors(
  metadata: readonly InferenceSession.ValueMetadata[],
  side: "input" | "output",
): TensorSpec[] {
  return metadata.map((value) => {
    if (!value.isTensor) {
      throw new Error(
        `${side} "${value.name}" is a map or a sequence, not a tensor: export the model again with plain tensors ` +
          "(skl2onnx: options={'zipmap': False})",
      );
    }
    if (!isDtype(value.type)) throw new Error(`${side} "${value.name}" has the unsupported data type ${value.type}`);
    return {
      name: value.name,
      dtype: value.type,
      shape: value.shape.map((d) => (typeof d === "number" && d < 0 ? "" : d)),
    };
  });
}

/** Throws when the manifest speaks of tensors that the ONNX file does not have, or has otherwise. */
export function checkManifest(manifest: Manifest, inputs: readonly TensorSpec[], outputs: readonly TensorSpec[]): void {
  if (manifest.kind !== "tabular") return;
  const { tensor, features } = manifest.input;
  const [input] = inputs;
  if (inputs.length !== 1 || input?.name !== tensor) {
    throw new Error(`model.json names the input "${tensor}", the ONNX file has ${names(inputs)}`);
  }
  if (input.dtype !== "float32" || input.shape.length !== 2) {
    throw new Error(`input "${tensor}" of a tabular model must be float32 [rows, features]`);
  }
  const width = input.shape[1];
  if (typeof width === "number" && width !== features.length) {
    throw new Error(`model.json names ${features.length} features, input "${tensor}" takes ${width}`);
  }
  const { output } = manifest;
  if (output.head === "raw") return;
  const name = output.head === "classifier" ? output.probabilities : output.value;
  const spec = outputs.find((candidate) => candidate.name === name);
  if (spec === undefined) throw new Error(`model.json names the output "${name}", the ONNX file has ${names(outputs)}`);
  const classes = spec.shape[1];
  if (output.head === "classifier" && typeof classes === "number" && classes !== output.labels.length) {
    throw new Error(`model.json has ${output.labels.length} labels, output "${name}" has ${classes} classes`);
  }
}

const names = (specs: readonly TensorSpec[]): string => specs.map((spec) => `"${spec.name}"`).join(", ");
