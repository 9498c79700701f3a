import type { Manifest, TabularManifest } from "@millrace/shared/models/manifest.js";
import { activationOf, areProbabilities } from "./class-probabilities.js";
import { ensemble } from "./ensemble-head.js";
import type { Head, Outputs } from "./head.js";
import { outputValues, roundToType } from "./output-values.js";
import { tensorJson } from "./tensor-json.js";

/** The head named by a manifest. Throws for a rule that is not a valid expression. */
export function headOf(manifest: Manifest): Head {
  const { output } = manifest;
  switch (output.head) {
    case "classifier":
      return classifier(output);
    case "multi_label":
      return multiLabel(output.probabilities, output.labels, output.threshold);
    case "regressor":
      return output.targets === undefined ? regressor(output.value) : manyTargets(output.value, output.targets);
    case "anomaly":
      return anomaly(output.score, output.threshold);
    case "ensemble":
      return ensemble(manifest as TabularManifest, output);
    case "raw":
      return raw;
  }
}

type Classifier = Extract<Manifest["output"], { head: "classifier" }>;

/** `{ label, confidence, probabilities }` of one row of class probabilities [rows, classes]. */
function classifier({ activation, labels, probabilities: name }: Classifier): Head {
  const keys = labels.map((label) => `${JSON.stringify(label)}:`);
  const quoted = labels.map((label) => JSON.stringify(label));
  const activate = activationOf(activation);
  return {
    read(outputs, range) {
      const found = outputValues(outputs[name], name, labels.length, range);
      if (typeof found === "string") return found;
      const values = activate === null ? found.values : activate(found.values, found.from, labels.length);
      const from = activate === null ? found.from : 0;
      let best = 0;
      let json = "";
      for (let c = 0; c < labels.length; c++) {
        const value = values[from + c] as number;
        if (!Number.isFinite(value)) return "the model gave a probability that is not finite";
        if (value > (values[from + best] as number)) best = c;
        json += `${c === 0 ? "" : ","}${keys[c]}${value}`;
      }
      const confidence = values[from + best] as number;
      return { json: `{"label":${quoted[best]},"confidence":${confidence},"probabilities":{${json}}}`, confidence };
    },
    fault(outputs) {
      const found = outputValues(outputs[name], name, labels.length, null);
      if (typeof found === "string") return `${found}; the labels and the tensor must fit each other`;
      if (activation !== undefined || areProbabilities(found.values, found.from, labels.length)) return null;
      return (
        `output "${name}" holds no probabilities (0 to 1, with the sum 1): ` +
        "set model.json /output/activation to " +
        '"softmax" or "sigmoid" for logits, or to "none" to return them unchanged'
      );
    },
  };
}

/** Checks the shape alone. */
const shapeFault =
  (name: string, width: number, remedy = "") =>
  (outputs: Outputs): string | null => {
    const found = outputValues(outputs[name], name, width, null);
    return typeof found === "string" ? `${found}${remedy}` : null;
  };

/** `{ value }` of one row of [rows] or [rows, 1]. */
function regressor(name: string): Head {
  return {
    read(outputs, range) {
      const found = outputValues(outputs[name], name, 1, range);
      if (typeof found === "string") return found;
      const value = found.values[found.from] as number;
      if (!Number.isFinite(value)) return "the model gave a value that is not finite";
      return { json: `{"value":${value}}`, confidence: Number.NaN };
    },
    fault: shapeFault(name, 1, ": name its columns in model.json /output/targets"),
  };
}

/** `{ values: { target: number } }` of one row of [rows, targets]. */
function manyTargets(name: string, targets: readonly string[]): Head {
  const keys = targets.map((target) => `${JSON.stringify(target)}:`);
  return {
    read(outputs, range) {
      const found = outputValues(outputs[name], name, targets.length, range);
      if (typeof found === "string") return found;
      const { from, values } = found;
      for (let c = 0; c < targets.length; c++) {
        if (!Number.isFinite(values[from + c])) return "the model gave a value that is not finite";
      }
      return { json: `{"values":{${keys.map((key, c) => `${key}${values[from + c]}`)}}}`, confidence: Number.NaN };
    },
    fault: shapeFault(name, targets.length, "; the targets and the tensor must fit each other"),
  };
}

/** `{ is_anomaly, score, threshold }` of one row of [rows] or [rows, 1]. */
function anomaly(name: string, threshold: number): Head {
  return {
    read(outputs, range) {
      const tensor = outputs[name];
      const found = outputValues(tensor, name, 1, range);
      if (typeof found === "string") return found;
      const score = found.values[found.from] as number;
      if (!Number.isFinite(score)) return "the model gave a score that is not finite";
      const reached = score >= roundToType(threshold, tensor?.type ?? "");
      return { json: `{"is_anomaly":${reached},"score":${score},"threshold":${threshold}}`, confidence: Number.NaN };
    },
    fault: shapeFault(name, 1, ": a score is one number a row"),
  };
}

/** `{ labels, scores }` of one row of [rows, labels]: labels that reach their threshold, and all scores. */
function multiLabel(name: string, labels: readonly string[], threshold: number | readonly number[]): Head {
  const keys = labels.map((label) => `${JSON.stringify(label)}:`);
  const quoted = labels.map((label) => JSON.stringify(label));
  const thresholds = typeof threshold === "number" ? labels.map(() => threshold) : threshold;
  return {
    read(outputs, range) {
      const tensor = outputs[name];
      const found = outputValues(tensor, name, labels.length, range);
      if (typeof found === "string") return found;
      const { from, values } = found;
      const given: (string | undefined)[] = [];
      const scores: string[] = [];
      for (let c = 0; c < labels.length; c++) {
        const value = values[from + c] as number;
        if (!Number.isFinite(value)) return "the model gave a probability that is not finite";
        if (value >= roundToType(thresholds[c] as number, tensor?.type ?? "")) given.push(quoted[c]);
        scores.push(`${keys[c]}${value}`);
      }
      return { json: `{"labels":[${given}],"scores":{${scores}}}`, confidence: Number.NaN };
    },
    fault: shapeFault(name, labels.length, "; the labels and the tensor must fit each other"),
  };
}

/** Every output tensor by name, as nested arrays. */
const raw: Head = {
  read(outputs, range) {
    const fields = Object.entries(outputs).map(
      ([name, tensor]) => `${JSON.stringify(name)}:${tensorJson(tensor, range)}`,
    );
    return { json: `{${fields.join(",")}}`, confidence: Number.NaN };
  },
  fault: () => null,
};
