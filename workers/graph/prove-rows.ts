import {
  type Fixed,
  fixed,
  isSteady,
  type Operation,
  type Rows,
  type Rule,
  rows,
  UnprovenError,
  type Value,
} from "./abstract-tensor.js";
import { classicalRules, textRules } from "./classical-rules.js";
import { drawingOperators } from "./draws-numbers.js";
import { elementwiseRules } from "./elementwise-rules.js";
import { linearRules } from "./linear-rules.js";
import { pictureRules } from "./picture-rules.js";
import type { OnnxGraph, OnnxModel, OnnxNode, OnnxTensor } from "./read-onnx.js";
import { reduceRules } from "./reduce-rules.js";
import { selectRules } from "./select-rules.js";
import { shapeRules } from "./shape-rules.js";
import { lengthAt, lengthMadeBy, lengthNamed, numberNamed, rowCount, type Size, sameSize, sizeOf } from "./sizes.js";

/**
 * Whether an ONNX graph is proven to keep rows apart: the first dimension of every output has one entry for each entry
 * of the inputs' first dimensions, in order, and no row influences the entry of another. `lengths` holds each output's
 * dimensions as far as they are known. Without a proof, `reason` names the operator that prevents it.
 */
export type RowProof =
  | { proven: true; lengths: ReadonlyMap<string, readonly Size[]> }
  | { proven: false; reason: string };

/** Rules for operators that keep rows apart, by domain. An operator without a rule prevents the proof. */
export const rulesByDomain: Readonly<Record<string, Readonly<Record<string, Rule>>>> = {
  "": {
    ...elementwiseRules,
    ...shapeRules,
    ...selectRules,
    ...pictureRules,
    ...linearRules,
    ...reduceRules,
    ...textRules,
  },
  "ai.onnx.ml": classicalRules,
};

/** The common length of the second dimension of these inputs, whatever symbols the file has for it. */
export interface SharedLength {
  inputs: readonly string[];
  name: string;
}

/**
 * Follows every tensor from the inputs to the outputs, operator by operator, as fixed, as rows along an axis or as
 * unknown. Assumes that runs join only requests whose inputs have one common first dimension within each request, and
 * equal other dimensions across requests, none of them 0.
 */
export function proveRows(model: OnnxModel, shared: SharedLength | null = null): RowProof {
  const { graph } = model;
  const known = new Map<string, Value>([["", fixed(null)]]);
  for (const tensor of [...graph.initializers, ...graph.sparseInitializers]) known.set(tensor.name, constantOf(tensor));
  try {
    readInputs(graph, known, shared);
  } catch (fault) {
    if (fault instanceof UnprovenError) return { proven: false, reason: fault.message };
    throw fault;
  }
  for (const [i, node] of graph.nodes.entries()) follow(model, node, i, known);
  const lengths = new Map<string, readonly Size[]>();
  for (const { name } of graph.outputs) {
    const value = known.get(name);
    const output = `output "${name}"`;
    if (value === undefined) return { proven: false, reason: `${output} is not produced by any operator` };
    if (value.kind === "unknown") return { proven: false, reason: value.reason };
    if (value.kind === "fixed") return { proven: false, reason: `${output} does not depend on the rows` };
    if (value.axis !== 0 || !sameSize(value.dims[0] as Size, rowCount)) {
      const where =
        value.axis === 0 ? "does not have exactly one entry a row" : `has its rows along dimension ${value.axis}`;
      return { proven: false, reason: `${output} ${where}` };
    }
    lengths.set(name, value.dims);
  }
  return { proven: true, lengths };
}

function readInputs(graph: OnnxGraph, known: Map<string, Value>, shared: SharedLength | null): void {
  // Inputs with an initializer are never fed.
  const fed = graph.inputs.filter(({ name }) => !known.has(name));
  if (fed.length === 0) throw new UnprovenError("the graph has no input");
  const firsts = new Set(fed.map(({ dims }) => dims?.[0]));
  for (const { dims, name } of fed) {
    const [first, ...rest] = dims ?? [];
    if (first === undefined) throw new UnprovenError(`input "${name}" has no first dimension`);
    if (typeof first === "number") throw new UnprovenError(`input "${name}" has a first dimension of exactly ${first}`);
    const lengths = rest.map((length, i) => {
      if (typeof length === "number") return sizeOf(length);
      if (shared?.inputs.includes(name) && i === 0) return lengthNamed(shared.name);
      if (length === "") return lengthAt(`dimension ${i + 1} of ${name}`);
      if (firsts.has(length))
        throw new UnprovenError(`input "${name}" has the length "${length}" of rows in another dimension`);
      return lengthNamed(length);
    });
    known.set(name, rows([rowCount, ...lengths], 0));
  }
}

/** Small lists of numbers keep their elements: they may be lengths, axes or bounds. */
const constantOf = ({ dims, elements }: OnnxTensor): Fixed => fixed(dims.map(sizeOf), elements?.map(sizeOf) ?? null);

/** Records the abstract outputs of an operator. */
function follow(model: OnnxModel, node: OnnxNode, position: number, known: Map<string, Value>): void {
  const values = outputsOf(model, node, position, known);
  for (const [i, name] of node.outputs.entries()) known.set(name, values[i] ?? unclear);
}

function outputsOf(
  model: OnnxModel,
  node: OnnxNode,
  position: number,
  known: ReadonlyMap<string, Value>,
): readonly Value[] {
  const inputs = node.inputs.map((name) => (name === "" ? null : (known.get(name) ?? unproduced)));
  const all = (value: Value) => node.outputs.map(() => value);
  const unknown = inputs.find((value) => value?.kind === "unknown");
  if (unknown != null) return all(unknown);
  const operator = node.name === "" ? node.type : `${node.type} "${node.name.slice(0, 100)}"`;
  const refused = (reason: string) => all({ kind: "unknown", reason: `${operator}: ${reason}` });
  const opaque = unanalysableReason(model, node);
  if (opaque !== null) return refused(opaque);
  const rules = rulesByDomain[node.domain] ?? {};
  const rule = Object.hasOwn(rules, node.type) ? rules[node.type] : undefined;
  const isFixed = inputs.every((value) => value === null || (value.kind === "fixed" && isSteady(value)));
  if (rule === undefined) return isFixed ? all(fixed(null)) : refused("it is not known to keep rows apart");
  try {
    const made = rule(operationOf(model, node, position, inputs));
    return "kind" in made ? [made] : made;
  } catch (fault) {
    if (!(fault instanceof UnprovenError)) throw fault;
    return isFixed ? all(fixed(null)) : refused(fault.message);
  }
}

/** Why an operator cannot be analysed, whatever its inputs; null for an operator that can. */
function unanalysableReason(model: OnnxModel, node: OnnxNode): string | null {
  if (model.functions.has(`${node.domain}:${node.type}`)) return "it is a function of the file, which is not analysed";
  if (rulesByDomain[node.domain] === undefined) {
    return `operators of the domain "${node.domain}" are not known to keep rows apart`;
  }
  for (const { graphs } of node.attributes.values()) {
    if (graphs.length > 0) return "it has a subgraph, which is not analysed";
  }
  return drawingOperators.has(node.type) ? "it draws random numbers" : null;
}

const unproduced: Value = { kind: "unknown", reason: "a tensor is not produced by any operator" };
const unclear: Value = { kind: "unknown", reason: "an operator has more outputs than its rule knows" };

function operationOf(
  model: OnnxModel,
  node: OnnxNode,
  position: number,
  inputs: readonly (Fixed | Rows | Value | null)[],
): Operation {
  let made = 0;
  const { attributes } = node;
  return {
    type: node.type,
    opset: model.opsets.get(node.domain) ?? 1,
    inputs,
    outputs: node.outputs.findLastIndex((name) => name !== "") + 1,
    int: (name, preset) => attributes.get(name)?.int ?? preset,
    float: (name, preset) => attributes.get(name)?.float ?? preset,
    text: (name, preset) => attributes.get(name)?.text ?? preset,
    numbers: (name) => node.numbers(name),
    count: (name) => node.count(name),
    constant(name) {
      const tensor = attributes.get(name)?.tensor;
      return tensor == null ? null : constantOf(tensor);
    },
    newLength: () => lengthMadeBy(`operator ${position}, ${made++}`),
    newNumber: () => numberNamed(`number of operator ${position}, ${made++}`),
  };
}
