import type { InputSpec } from "../../support/models/joined-runs.js";
import type { ModelFile } from "../../support/models/onnx-file.js";
import { random } from "../../support/random.js";
import { GraphBuilder, type GraphTensor, type Step } from "./graph-builder.js";
import { linearSteps } from "./linear-steps.js";
import { selectSteps } from "./select-steps.js";
import { shapeSteps } from "./shape-steps.js";
import { valueSteps } from "./value-steps.js";

/** A random graph's seeds: one a step, so that a failing plan can be shrunk step by step. */
export interface GraphPlan {
  seed: number;
  steps: readonly number[];
}

export interface RandomGraph {
  file: ModelFile;
  inputs: readonly InputSpec[];
  /** Number of operators, without constants. */
  operators: number;
}

const opsets = [7, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21];
const kinds: readonly (readonly Step[])[] = [valueSteps, shapeSteps, shapeSteps, selectSteps, linearSteps];

/** The graph of a plan; deterministic. */
export function randomGraph({ seed, steps }: GraphPlan): RandomGraph {
  const choice = random(seed);
  // The steps fit a run of this number of rows; with another the graph may not run at all.
  const graph = new GraphBuilder(choice.pick(opsets), choice.pick([1, 2, 2, 3, 3, 5]));
  const side = () => choice.pick([1, 2, 3, 4, ["L", 3], ["L", 3], ["M", 2]] as const);
  const sides = () => Array.from({ length: choice.below(4) }, side);
  const first = sides();
  graph.input("float32", first);
  for (let more = choice.below(3); more > 0; more--) {
    const again = choice.below(2) === 0 ? first : sides();
    const symbol = choice.below(3) === 0 ? "K" : "N";
    graph.input(choice.below(2) === 0 ? "int64" : "float32", again, symbol);
  }
  for (const step of steps) {
    const own = random(step);
    own.pick(own.pick(kinds))(graph, own);
  }
  const file = graph.graph(outputsOf(graph, choice.below(3)));
  return {
    file: { ...file, opset: graph.opset },
    inputs: graph.specs,
    operators: file.nodes.filter(({ type }) => type !== "Constant").length,
  };
}

/** The last tensors; mostly those with the rows in the first dimension. */
function outputsOf(graph: GraphBuilder, way: number): GraphTensor[] {
  const all = graph.values.filter(({ name, numbers }) => numbers === undefined && name.startsWith("v"));
  const first = all.filter(({ dims }) => dims[0] === graph.rows);
  const chosen = way > 0 && first.length > 0 ? first : all;
  const last = chosen.slice(way === 2 ? -2 : -1);
  return last.length > 0 ? last : [graph.values[0] as GraphTensor];
}
