import type { Manifest, TabularManifest } from "@millrace/shared/manifest.js";
import { ensemble } from "./ensemble-head.js";
import type { Head } from "./head.js";
import { tensorJson } from "./tensor-json.js";

/** The head that a manifest names. Throws for a rule that is no expression. */
export function headOf(manifest: Manifest): Head {
  const { output } = manifest;
  switch (output.head) {
    case "classifier":
      return classifier(output.probabilities, output.labels);
    case "multi_label":
      return multiLabel(output.probabilities, output.labels, output.threshold);
    case "regressor":
      return regressor(output.value);
    case "anomaly":
      return anomaly(output.score, output.threshold);
    case "ensemble":
      return ensemble(manifest as TabularManifest, output);
    case "raw":
      return raw;
  }
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

/** `{ is_anomaly, score, threshold }` of one row of [rows] or [rows, 1]. */
function anomaly(tensorName: string, threshold: number): Head {
  return (outputs, range) => {
    const score = Number((outputs[tensorName]?.data as ArrayLike<number> | undefined)?.[range?.[0] ?? 0]);
    if (!Number.isFinite(score)) return "the model gave a score that is no number";
    const json = `{"is_anomaly":${score >= threshold},"score":${score},"threshold":${threshold}}`;
    return { json, confidence: Number.NaN };
  };
}

/** `{ labels, scores }` of one row of [rows, labels]: those that reach their threshold, and all scores. */
function multiLabel(tensorName: string, labels: readonly string[], threshold: number | readonly number[]): Head {
  const keys = labels.map((label) => `${JSON.stringify(label)}:`);
  const quoted = labels.map((label) => JSON.stringify(label));
  return (outputs, range) => {
    const tensor = outputs[tensorName];
    if (tensor === undefined || tensor.dims[1] !== labels.length) return "the model gave no probabilities";
    const values = tensor.data as Float32Array;
    const from = (range?.[0] ?? 0) * labels.length;
    const given: (string | undefined)[] = [];
    const scores: string[] = [];
    for (let c = 0; c < labels.length; c++) {
      const value = values[from + c] as number;
      if (!Number.isFinite(value)) return "the model gave a probability that is no number";
      if (value >= (typeof threshold === "number" ? threshold : (threshold[c] as number))) given.push(quoted[c]);
      scores.push(`${keys[c]}${value}`);
    }
    return { json: `{"labels":[${given}],"scores":{${scores}}}`, confidence: Number.NaN };
  };
}

/** Every output tensor by name, as nested arrays. */
const raw: Head = (outputs, range) => {
  const fields = Object.entries(outputs).map(
    ([name, tensor]) => `${JSON.stringify(name)}:${tensorJson(tensor, range)}`,
  );
  return { json: `{${fields.join(",")}}`, confidence: Number.NaN };
};
