import { Environment } from "@marcbachmann/cel-js";
import type { EnsembleMember } from "@millrace/shared/models/manifest-output.js";
import type { Tensor } from "onnxruntime-node";
import { outputValues, roundToType } from "./output-values.js";

/** One row as seen by members: the outputs of the ONNX files, and its features in tensor order. */
export interface MemberView {
  outputs: Readonly<Record<string, Tensor>>;
  row: number;
  values: Float32Array;
}

/**
 * A member's probabilities for the ensemble's labels: 0 to 1 each, with a sum of at most 1; `best` is the index of the
 * first largest.
 */
export interface Say {
  best: number;
  probabilities: Float64Array;
}

/** A member's vote; null where it abstains, a sentence where it fails. */
export type Member = (view: MemberView) => Say | null | string;

type MemberOfKind<K extends EnsembleMember["kind"]> = Extract<EnsembleMember, { kind: K }>;

/**
 * A member of an ensemble with these labels, over these feature names. Throws for an invalid rule or an unknown
 * feature.
 */
export function memberOf(member: EnsembleMember, labels: readonly string[], columns: readonly string[]): Member {
  switch (member.kind) {
    case "classifier":
      return classifierMember(member, labels);
    case "anomaly": {
      const say = flagging(member, labels);
      const tensor = `${member.name}/${member.score}`;
      return ({ outputs, row }) => {
        const found = outputValues(outputs[tensor], tensor, 1, [row, row + 1]);
        if (typeof found === "string") return found;
        const score = found.values[found.from] as number;
        return Number.isFinite(score) ? say(score, outputs[tensor]?.type) : "the model gave a score that is not finite";
      };
    }
    case "rules":
      return rulesMember(member, labels, columns);
    case "statistics":
      return statisticsMember(member, labels, columns);
  }
}

function classifierMember(member: MemberOfKind<"classifier">, labels: readonly string[]): Member {
  const tensor = `${member.name}/${member.probabilities}`;
  const places = member.labels.map((own) => {
    const said = member.says === undefined ? own : (member.says[own] ?? null);
    return said === null ? -1 : labels.indexOf(said);
  });
  return ({ outputs, row }) => {
    const found = outputValues(outputs[tensor], tensor, places.length, [row, row + 1]);
    if (typeof found === "string") return found;
    const probabilities = new Float64Array(labels.length);
    let unsaid = 0;
    for (const [c, place] of places.entries()) {
      const value = found.values[found.from + c] as number;
      if (!Number.isFinite(value)) return "the model gave a probability that is not finite";
      if (place < 0) unsaid += value;
      else probabilities[place] = (probabilities[place] as number) + value;
    }
    const say = bestOf(probabilities);
    // Its most probable label is none of the ensemble's.
    return unsaid > (probabilities[say.best] as number) ? null : say;
  };
}

function rulesMember(member: MemberOfKind<"rules">, labels: readonly string[], columns: readonly string[]): Member {
  const environment = new Environment({ limits: { maxAstNodes: 1000, maxDepth: 64 } })
    .registerVariable({ name: "f", schema: Object.fromEntries(columns.map((name) => [name, "double"])) })
    .registerFunction("abs(double): double", Math.abs);
  const rules = member.rules.map(({ confidence, label, when }, i) => {
    const refuse = (why: string) => new Error(`model.json: rule ${i} of member "${member.name}" ${why.split("\n")[0]}`);
    let holds: (context: object) => unknown;
    try {
      const parsed = environment.parse(when);
      const checked = parsed.check();
      if (!checked.valid) throw checked.error ?? new Error("has no type");
      if (checked.type !== "bool") throw new Error(`must be true or false, not ${checked.type}`);
      holds = parsed;
    } catch (fault) {
      throw refuse((fault as Error).message);
    }
    return { holds, say: { best: labels.indexOf(label), probabilities: oneHot(labels, label, confidence) } };
  });
  return ({ values }) => {
    const f = Object.fromEntries(columns.map((name, c) => [name, values[c]]));
    try {
      return rules.find(({ holds }) => holds({ f }) === true)?.say ?? null;
    } catch (fault) {
      return `a rule cannot be evaluated: ${(fault as Error).message.split("\n")[0]}`;
    }
  };
}

function statisticsMember(
  member: MemberOfKind<"statistics">,
  labels: readonly string[],
  columns: readonly string[],
): Member {
  const say = flagging(member, labels);
  const baselines = member.baselines.map(({ feature, log, mean, std }) => {
    const column = columns.indexOf(feature);
    if (column < 0)
      throw new Error(`model.json: member "${member.name}" has a baseline for the unknown feature "${feature}"`);
    return { column, mean, std, log };
  });
  const deviations = ({ values }: MemberView) =>
    baselines.map(({ column, log, mean, std }) => {
      const value = values[column] as number;
      return ((log ? Math.sign(value) * Math.log1p(Math.abs(value)) : value) - mean) / std;
    });
  const { precision } = member;
  if (precision === undefined) return (view) => say(Math.max(...deviations(view).map(Math.abs)));
  return (view) => {
    const z = deviations(view);
    let squared = 0;
    for (const [i, row] of precision.entries()) {
      for (const [k, weight] of row.entries()) squared += weight * (z[i] as number) * (z[k] as number);
    }
    return say(Math.sqrt(Math.max(0, squared)));
  };
}

/** A score as a vote: the anomaly label by a logistic function around the threshold, the rest for the normal label. */
function flagging(
  { anomaly, normal, scale, threshold }: { anomaly: string; normal: string | null; scale: number; threshold: number },
  labels: readonly string[],
): (score: number, type?: string) => Say | null {
  return (score, type = "float64") => {
    const strange = 1 / (1 + Math.exp(-(score - threshold) / scale));
    if (normal === null && score < roundToType(threshold, type)) return null;
    const probabilities = oneHot(labels, anomaly, strange);
    if (normal !== null) probabilities[labels.indexOf(normal)] = 1 - strange;
    return bestOf(probabilities);
  };
}

function oneHot(labels: readonly string[], label: string, value: number): Float64Array {
  const probabilities = new Float64Array(labels.length);
  probabilities[labels.indexOf(label)] = value;
  return probabilities;
}

function bestOf(probabilities: Float64Array): Say {
  let best = 0;
  for (let l = 1; l < probabilities.length; l++)
    if ((probabilities[l] as number) > (probabilities[best] as number)) best = l;
  return { best, probabilities };
}
