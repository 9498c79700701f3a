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

/** Throws when the manifest speaks of tensors that the ONNX file does not have, or has otherwise; lists every fault. */
export function checkManifest(manifest: Manifest, inputs: readonly TensorSpec[], outputs: readonly TensorSpec[]): void {
  const faults = [...inputFaults(manifest, inputs), ...outputFaults(manifest, outputs)];
  if (faults.length > 0) throw new Error(`model.json ${faults.join("; model.json ")}`);
}

function inputFaults(manifest: Manifest, inputs: readonly TensorSpec[]): string[] {
  switch (manifest.kind) {
    case "tensor":
      return [];
    case "tabular": {
      const { derived, features, tensor } = manifest.input;
      const count = features.length + derived.length;
      const what =
        derived.length === 0 ? `${count} features` : `${features.length} features and ${derived.length} derived`;
      return soleInput(inputs, tensor, ({ dtype, shape }) => {
        if (dtype !== "float32" || shape.length !== 2) return "of a tabular model must be float32 [rows, features]";
        const width = shape[1];
        return typeof width === "number" && width !== count ? `takes ${width}, model.json names ${what}` : null;
      });
    }
    case "image": {
      const { channels, height, layout, tensor, width } = manifest.input;
      const depth = channels === "rgb" ? 3 : 1;
      const wanted = layout === "nchw" ? [depth, height, width] : [height, width, depth];
      return soleInput(inputs, tensor, ({ dtype, shape }) => {
        if (dtype !== "float32" && dtype !== "uint8") return "of an image model must be float32 or uint8";
        const fits =
          shape.length === 4 && wanted.every((size, d) => typeof shape[d + 1] === "string" || shape[d + 1] === size);
        return fits ? null : `has the shape [${shape}], model.json makes [rows,${wanted}]`;
      });
    }
    case "text": {
      const { tensor, tokenizer } = manifest.input;
      if (tensor !== undefined) {
        return soleInput(inputs, tensor, ({ dtype, shape }) =>
          dtype === "string" && hasOneARow(shape) ? null : "must be string [rows] or [rows, 1]",
        );
      }
      const { ids, mask, position_ids, type_ids } = tokenizer as NonNullable<typeof tokenizer>;
      const wanted = [ids, mask, type_ids, position_ids].filter((name) => name !== undefined);
      const faults = wanted.flatMap((name) => {
        const spec = inputs.find((input) => input.name === name);
        if (spec === undefined)
          return [`/input/tokenizer: names the input "${name}", the ONNX file has ${names(inputs)}`];
        return (spec.dtype === "int32" || spec.dtype === "int64") && spec.shape.length === 2
          ? []
          : [`/input/tokenizer: input "${name}" must be int32 or int64 [rows, tokens]`];
      });
      const unfed = inputs.filter((spec) => !wanted.includes(spec.name));
      return unfed.length === 0 ? faults : [...faults, `/input/tokenizer: says nothing of the input ${names(unfed)}`];
    }
  }
}

function soleInput(
  inputs: readonly TensorSpec[],
  tensor: string,
  faultOf: (spec: TensorSpec) => string | null,
): string[] {
  const [input] = inputs;
  if (inputs.length !== 1 || input?.name !== tensor) {
    return [`/input/tensor: names the input "${tensor}", the ONNX file has ${names(inputs)}`];
  }
  const fault = faultOf(input);
  return fault === null ? [] : [`/input: input "${tensor}" ${fault}`];
}

function outputFaults({ output }: Manifest, outputs: readonly TensorSpec[]): string[] {
  switch (output.head) {
    case "raw":
      return [];
    case "classifier":
    case "multi_label":
      return labelFaults("/output", output, outputs);
    case "regressor":
      return scalarFaults("/output/value", output.value, outputs);
    case "anomaly":
      return scalarFaults("/output/score", output.score, outputs);
    case "ensemble":
      return output.members.flatMap((member, i) => {
        const at = `/output/members/${i}`;
        const own = outputs.filter((spec) => spec.name.startsWith(`${member.name}/`));
        const ownNames = own.map((spec) => ({ ...spec, name: spec.name.slice(member.name.length + 1) }));
        if (member.kind === "classifier") return labelFaults(at, member, ownNames);
        return member.kind === "anomaly" ? scalarFaults(`${at}/score`, member.score, ownNames) : [];
      });
  }
}

function labelFaults(
  at: string,
  { labels, probabilities }: { labels: readonly string[]; probabilities: string },
  outputs: readonly TensorSpec[],
): string[] {
  const missing = tensorFaults(`${at}/probabilities`, probabilities, outputs);
  if (missing.length > 0) return missing;
  const classes = outputs.find((spec) => spec.name === probabilities)?.shape[1];
  if (typeof classes !== "number" || classes === labels.length) return [];
  return [`${at}/labels: has ${labels.length}, output "${probabilities}" has ${classes} classes`];
}

const hasOneARow = (shape: TensorSpec["shape"]): boolean =>
  shape.length === 1 || (shape.length === 2 && (typeof shape[1] === "string" || shape[1] === 1));

/** For a tensor of one number a row. */
function scalarFaults(pointer: string, name: string, outputs: readonly TensorSpec[]): string[] {
  const missing = tensorFaults(pointer, name, outputs);
  if (missing.length > 0) return missing;
  const { shape } = outputs.find((spec) => spec.name === name) as TensorSpec;
  return hasOneARow(shape) ? [] : [`${pointer}: output "${name}" must be [rows] or [rows, 1], is [${shape}]`];
}

function tensorFaults(pointer: string, name: string, outputs: readonly TensorSpec[]): string[] {
  const spec = outputs.find((candidate) => candidate.name === name);
  if (spec === undefined) return [`${pointer}: names the output "${name}", the ONNX file has ${names(outputs)}`];
  return spec.dtype === "float32" || spec.dtype === "float64"
    ? []
    : [`${pointer}: output "${name}" must be of floats, is ${spec.dtype}`];
}

const names = (specs: readonly TensorSpec[]): string => specs.map((spec) => `"${spec.name}"`).join(", ") || "none";
