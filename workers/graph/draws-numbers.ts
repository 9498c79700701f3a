import { allNodes, type OnnxModel } from "./read-onnx.js";

/** Operators with a random output. Dropout is random only in training mode. */
export const drawingOperators: ReadonlySet<string> = new Set([
  "RandomNormal",
  "RandomNormalLike",
  "RandomUniform",
  "RandomUniformLike",
  "Multinomial",
  "Bernoulli",
  // Of other domains.
  "BiasDropout",
  "BitmaskDropout",
  "BitmaskBiasDropout",
  "Sampling",
]);

/** Whether a graph draws random numbers, so that the same input has different outputs. */
export function drawsNumbers(model: OnnxModel): boolean {
  const isFalse = new Set<string>();
  for (const { elements, name } of model.graph.initializers) if (elements?.[0] === 0) isFalse.add(name);
  const trained: string[] = [];
  for (const node of allNodes(model)) {
    if (drawingOperators.has(node.type)) return true;
    const [output] = node.outputs;
    if (node.type === "Constant" && output !== undefined) {
      if (node.attributes.get("value")?.tensor?.elements?.[0] === 0) isFalse.add(output);
    }
    if (node.type === "Dropout" && (node.inputs[2] ?? "") !== "") trained.push(node.inputs[2] as string);
  }
  return trained.some((name) => !isFalse.has(name));
}
