import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";
import { isDtype } from "@millrace/shared/tensors/dtype.js";
import type { InferenceSession } from "onnxruntime-node";
import { freeSymbol, type OnnxModel } from "../graph/read-onnx.js";

/** The tensors that an ONNX file declares. Throws for a value of any other type, with the remedy. */
export function describeTensors(
  metadata: readonly InferenceSession.ValueMetadata[],
  side: "input" | "output",
): TensorSpec[] {
  return metadata.map((value) => {
    if (!value.isTensor) {
      throw new Error(
        `${side} "${value.name}" is a map or a sequence, not a tensor: export the model again with plain tensors ` +
          "(scikit-learn: skl2onnx.to_onnx(..., options={'zipmap': False}); " +
          "LightGBM: onnxmltools.convert_lightgbm(..., zipmap=False); XGBoost: onnxmltools.convert_xgboost; " +
          "PyTorch: return tensors from forward), or take the ZipMap node off the file " +
          "(CatBoost: docs/models.md has the lines)",
      );
    }
    if (value.name === "__proto__" && side === "output") {
      throw new Error(`the output name "${value.name}" is reserved: rename the output`);
    }
    if (!isDtype(value.type)) throw new Error(`${side} "${value.name}" has the unsupported data type ${value.type}`);
    return {
      name: value.name,
      dtype: value.type,
      shape: value.shape.map((d) => (typeof d === "number" ? (d < 0 ? "" : d) : freeSymbol(d))),
    };
  });
}

/**
 * Throws where the manifest names tensors missing in the ONNX file, or contradicts their dtype or shape; lists every
 * fault.
 */
export function checkManifest(manifest: Manifest, inputs: readonly TensorSpec[], outputs: readonly TensorSpec[]): void {
  const faults = [...inputFaults(manifest, inputs), ...outputFaults(manifest, outputs)];
  if (faults.length > 0) throw new Error(`model.json ${faults.join("; model.json ")}`);
}

/** Throws for an input without a declared shape, since requests could not be checked against it. */
export function assertShapes({ graph }: OnnxModel): void {
  const preset = new Set(graph.initializers.map(({ name }) => name));
  const bare = graph.inputs.find(({ dims, name }) => dims === null && !preset.has(name));
  if (bare !== undefined) {
    const remedy = "export the model with a shape; dimensions may be free, such as [rows, 3]";
    throw new Error(`input "${bare.name}" declares no shape: ${remedy}`);
  }
}

/** For the kinds whose models take rows, one or many at a time. */
function rowFaults(inputs: readonly TensorSpec[]): string[] {
  return inputs.flatMap(({ name, shape: [rows] }) =>
    typeof rows === "number" && rows !== 1
      ? [`/kind: input "${name}" takes exactly ${rows} rows: export the model with a free first dimension`]
      : [],
  );
}

function inputFaults(manifest: Manifest, inputs: readonly TensorSpec[]): string[] {
  const faults = kindFaults(manifest, inputs);
  return manifest.kind === "tensor" ? faults : [...faults, ...rowFaults(inputs)];
}

function kindFaults(manifest: Manifest, inputs: readonly TensorSpec[]): string[] {
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
        return typeof width === "number" && width !== count ? `takes ${width} columns, model.json names ${what}` : null;
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
        return fits ? null : `has the shape [${shape}], model.json gives [rows,${wanted}]`;
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
      return unfed.length === 0 ? faults : [...faults, `/input/tokenizer: does not name the input ${names(unfed)}`];
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
      return output.targets === undefined
        ? scalarFaults("/output/value", output.value, outputs)
        : columnFaults("/output/value", output.value, "targets", output.targets.length, outputs);
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
  return columnFaults(`${at}/probabilities`, probabilities, "labels", labels.length, outputs);
}

/** For a tensor with `count` numbers a row, named by `field` beside the pointer. */
function columnFaults(
  pointer: string,
  name: string,
  field: "labels" | "targets",
  count: number,
  outputs: readonly TensorSpec[],
): string[] {
  const missing = tensorFaults(pointer, name, outputs);
  if (missing.length > 0) return missing;
  const columns = outputs.find((spec) => spec.name === name)?.shape[1];
  // Exporters declare one column of a regressor, whatever the number of targets; only a run shows it.
  const isDeclared = typeof columns === "number" && !(field === "targets" && columns === 1);
  if (!isDeclared || columns === count) return [];
  const at = pointer.slice(0, pointer.lastIndexOf("/"));
  return [`${at}/${field}: has ${count}, output "${name}" has ${columns} columns`];
}

/** True also without a declared shape, or for a free second dimension: a run shows the real one. */
const hasOneARow = (shape: TensorSpec["shape"]): boolean =>
  shape.length <= 1 || (shape.length === 2 && (typeof shape[1] === "string" || shape[1] === 1));

/** For a tensor with one number a row. */
function scalarFaults(pointer: string, name: string, outputs: readonly TensorSpec[]): string[] {
  const missing = tensorFaults(pointer, name, outputs);
  if (missing.length > 0) return missing;
  const { shape } = outputs.find((spec) => spec.name === name) as TensorSpec;
  return hasOneARow(shape) ? [] : [`${pointer}: output "${name}" must be [rows] or [rows, 1], is [${shape}]`];
}

function tensorFaults(pointer: string, name: string, outputs: readonly TensorSpec[]): string[] {
  const spec = outputs.find((candidate) => candidate.name === name);
  if (spec === undefined) return [`${pointer}: names the output "${name}", the ONNX file has ${names(outputs)}`];
  return spec.dtype === "string" || spec.dtype === "bool"
    ? [`${pointer}: output "${name}" must be numeric, is ${spec.dtype}`]
    : [];
}

const names = (specs: readonly TensorSpec[]): string => specs.map((spec) => `"${spec.name}"`).join(", ") || "none";
