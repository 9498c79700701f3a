import type { Manifest } from "@millrace/shared/manifest.js";
import type { Tensor } from "onnxruntime-node";
import { tensorJson } from "./tensor-json.js";

/**
 * An output as the contract's JSON, the confidence of a classifier (else NaN), and the tensors as a pack where they are
 * wanted; or a sentence why there is none.
 */
export type HeadOutput = { json: string; confidence: number; pack?: Buffer } | string;

/** Reads rows [from, to) of a run's outputs; null stands for all of them. */
export type Head = (outputs: Readonly<Record<string, Tensor>>, range: readonly [number, number] | null) => HeadOutput;

/** The head that a manifest names. */
export function headOf(manifest: Manifest): Head {
  const { output } = manifest;
  if (output.head === "classifier") return classifier(output.probabilities, output.labels);
  if (output.head === "regressor") return regressor(output.value);
  return raw;
}

/** `{ label, confidence, probabilities }` of one row of class probabilities [rows, classes]. */
function classifier(tensorName: string, labels: readonly string[]): Head {
  const keys = labels.map((label) => `${JSON.stringify(label)}:`);
  const quoted = labels.map((label) => JSON.stringify(label));
  return (outputs, range) => {
    const tensor = outputs[tensorName];
    if (tensor === undefined || tensor.dims[1] !== labels.length) return "the model gave no probabilities";
    const values = tensor.data as Float32Array;
    const from = (range?.[0] ?? 0) * labels.length;
    let best = 0;
    let json = "";
    for (let c = 0; c < labels.length; c++) {
      const value = values[from + c] as number;
      if (!Number.isFinite(value)) return "the model gave a probability that is no number";
      if (value > (values[from + best] as number)) best = c;
      json += `${c === 0 ? "" : ","}${keys[c]}${value}`;
    }
    const confidence = values[from + best] as number;
    return { json: `{"label":${quoted[best]},"confidence":${confidence},"probabilities":{${json}}}`, confidence };
  };
}

/** `{ value }` of one row of [rows] or [rows, 1]. */
function regressor(tensorName: string): Head {
  return (outputs, range) => {
    const value = Number((outputs[tensorName]?.data as ArrayLike<number> | undefined)?.[range?.[0] ?? 0]);
    if (!Number.isFinite(value)) return "the model gave a value that is no number";
    return { json: `{"value":${value}}`, confidence: Number.NaN };
  };
}

/** Every output tensor by name, as nested arrays. */
const raw: Head = (outputs, range) => {
  const fields = Object.entries(outputs).map(
    ([name, tensor]) => `${JSON.stringify(name)}:${tensorJson(tensor, range)}`,
  );
  return { json: `{${fields.join(",")}}`, confidence: Number.NaN };
};
