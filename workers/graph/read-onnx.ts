import { readFileSync } from "node:fs";
import {
  onnxSchema,
  type RawAttribute,
  type RawGraph,
  type RawModel,
  type RawNode,
  type RawSparseTensor,
  type RawTensor,
  type RawValue,
} from "./onnx-schema.js";
import { elementsOf } from "./tensor-elements.js";

/**
 * The parts of an ONNX file used here, with the field names of the published `onnx.proto` (ONNX 1.23, Apache-2.0).
 * Attributes stay bytes until requested: those of tree ensembles are most of a file.
 */
export interface OnnxModel {
  graph: OnnxGraph;
  /** Version of the operator set by domain; "" is ONNX's own. */
  opsets: ReadonlyMap<string, number>;
  /** Model-local functions, as `domain:name`. */
  functions: ReadonlyMap<string, readonly OnnxNode[]>;
  /** Graphs for training only; their tensors may still name external files. */
  training: readonly OnnxGraph[];
}

export interface OnnxGraph {
  nodes: readonly OnnxNode[];
  inputs: readonly OnnxValue[];
  outputs: readonly OnnxValue[];
  initializers: readonly OnnxTensor[];
  sparseInitializers: readonly OnnxTensor[];
}

export interface OnnxNode {
  name: string;
  type: string;
  domain: string;
  inputs: readonly string[];
  outputs: readonly string[];
  /** Attributes by name, without long lists of numbers and texts. */
  attributes: ReadonlyMap<string, OnnxAttribute>;
  /** The numbers of a list attribute; null without an attribute of this name. */
  numbers(name: string): number[] | null;
  /** Number of elements of a list attribute. */
  count(name: string): number;
}

export interface OnnxAttribute {
  int: number;
  float: number;
  text: string;
  tensor: OnnxTensor | null;
  graphs: readonly OnnxGraph[];
  tensors: readonly OnnxTensor[];
}

/** A declared input or output; `dims` is null without a declared shape. */
export interface OnnxValue {
  name: string;
  /** A number, or the symbol of a free dimension ("" without one). */
  dims: readonly (number | string)[] | null;
}

export interface OnnxTensor {
  name: string;
  dims: readonly number[];
  /** The elements of a small list of numbers inside the file; else null. */
  elements: readonly number[] | null;
  /** The external file with its data; null for data inside the file. */
  location: string | null;
}

/** Reads an ONNX file. Throws for bytes that are not ONNX. */
export function readOnnx(file: string): OnnxModel {
  let model: RawModel;
  try {
    model = onnxSchema.model.decode(readFileSync(file)) as unknown as RawModel;
  } catch (fault) {
    const { code, message } = fault as NodeJS.ErrnoException;
    throw new Error(code === undefined ? `it is not an ONNX file (${message})` : `it cannot be read (${code})`);
  }
  if (model.graph == null) throw new Error("it is not an ONNX file: it has no graph");
  const functions = model.functions.map(
    (own) => [`${normalDomain(own.domain)}:${own.name}`, own.node.map(nodeOf)] as const,
  );
  return {
    graph: graphOf(model.graph),
    opsets: new Map(model.opset_import.map(({ domain, version }) => [normalDomain(domain), Number(version)])),
    functions: new Map(functions),
    training: model.training_info.flatMap(({ algorithm, initialization }) =>
      [algorithm, initialization].filter((graph) => graph != null).map(graphOf),
    ),
  };
}

/** Every graph of a model, as a list of nodes: its own, those nested in nodes, and those of functions. */
export function* allNodes(model: OnnxModel): Generator<OnnxNode> {
  const open: (readonly OnnxNode[])[] = [
    model.graph.nodes,
    ...model.functions.values(),
    ...model.training.map(({ nodes }) => nodes),
  ];
  for (let nodes = open.pop(); nodes !== undefined; nodes = open.pop()) {
    for (const node of nodes) {
      yield node;
      for (const { graphs } of node.attributes.values()) open.push(...graphs.map((graph) => graph.nodes));
    }
  }
}

/** Every tensor of a model, including nested graphs, functions and training. */
export function* allTensors(model: OnnxModel): Generator<OnnxTensor> {
  const ofGraph = function* (graph: OnnxGraph): Generator<OnnxTensor> {
    yield* graph.initializers;
    yield* graph.sparseInitializers;
  };
  yield* ofGraph(model.graph);
  for (const graph of model.training) yield* ofGraph(graph);
  for (const node of allNodes(model)) {
    for (const { graphs, tensor, tensors } of node.attributes.values()) {
      if (tensor !== null) yield tensor;
      yield* tensors;
      for (const graph of graphs) yield* ofGraph(graph);
    }
  }
}

/** The domain of ONNX's own operators may be empty or spelled out. */
const normalDomain = (domain: string): string => (domain === "ai.onnx" ? "" : domain);

function graphOf(graph: RawGraph): OnnxGraph {
  return {
    nodes: graph.node.map(nodeOf),
    inputs: graph.input.map(declared),
    outputs: graph.output.map(declared),
    initializers: graph.initializer.map(tensorOf),
    sparseInitializers: graph.sparse_initializer.flatMap(sparseTensors),
  };
}

/** A sparse tensor is named by its values tensor; both its parts may name external files. */
function sparseTensors({ dims, indices, values }: RawSparseTensor): OnnxTensor[] {
  const whole = { dims: dims.map(Number), elements: null };
  return [
    ...(values == null ? [] : [{ ...tensorOf(values), ...whole }]),
    ...(indices == null ? [] : [{ ...tensorOf(indices), ...whole, name: "" }]),
  ];
}

function nodeOf(node: RawNode): OnnxNode {
  const bytes = new Map<string, Uint8Array>();
  const attributes = new Map<string, OnnxAttribute>();
  for (const raw of node.attribute) {
    const attribute = onnxSchema.shortAttribute.decode(raw) as unknown as RawAttribute;
    bytes.set(attribute.name, raw);
    attributes.set(attribute.name, {
      int: Number(attribute.i),
      float: attribute.f,
      text: Buffer.from(attribute.s).toString(),
      tensor: attribute.t == null ? null : tensorOf(attribute.t),
      tensors: [
        ...attribute.tensors.map(tensorOf),
        ...[attribute.sparse_tensor, ...attribute.sparse_tensors].filter((t) => t != null).flatMap(sparseTensors),
      ],
      graphs: [attribute.g, ...attribute.graphs].filter((graph) => graph != null).map(graphOf),
    });
  }
  return {
    name: node.name,
    type: node.op_type,
    domain: normalDomain(node.domain),
    inputs: node.input,
    outputs: node.output,
    attributes,
    numbers(name) {
      const raw = bytes.get(name);
      if (raw === undefined) return null;
      const { floats, ints } = onnxSchema.longAttribute.decode(raw) as unknown as RawAttribute;
      return ints.length > 0 ? ints.map(Number) : [...floats];
    },
    count(name) {
      const raw = bytes.get(name);
      if (raw === undefined) return 0;
      const { floats, ints, strings } = onnxSchema.longAttribute.decode(raw) as unknown as RawAttribute;
      return floats.length + ints.length + strings.length;
    },
  };
}

function declared({ name, type }: RawValue): OnnxValue {
  const shape = type?.tensor_type?.shape;
  // A dimension has a value or a symbol; the omitted one reads as 0 or "".
  const dims = shape?.dim.map((dim) =>
    Object.hasOwn(dim, "dim_value") && dim.dim_value >= 0 ? Number(dim.dim_value) : freeSymbol(dim.dim_param),
  );
  return { name, dims: dims ?? null };
}

/** Exporters' placeholders for an unnamed dimension count as no symbol: two of them need not be equal. */
export const freeSymbol = (symbol: string): string => (symbol === "?" || symbol === "-1" ? "" : symbol);

function tensorOf(tensor: RawTensor): OnnxTensor {
  const dims = tensor.dims.map(Number);
  const outside = tensor.data_location === external;
  // Returned even for a tensor marked as internal, since other readers may follow the location.
  const location = tensor.external_data.find(({ key }) => key === "location")?.value ?? null;
  return { name: tensor.name, dims, elements: outside ? null : elementsOf(tensor, dims), location };
}

const external = 1;
