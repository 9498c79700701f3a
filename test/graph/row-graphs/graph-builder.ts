import type { Dtype } from "@millrace/shared/tensors/dtype.js";
import type { InputSpec } from "../../support/models/joined-runs.js";
import {
  type Attribute,
  type ConstantTensor,
  floats,
  type GraphFile,
  ints,
  type NodeFile,
  type ValueFile,
} from "../../support/models/onnx-file.js";
import type { Random } from "../../support/random.js";

/** A tensor of a graph under construction; its dimensions are those in a run of `rows` rows. */
export interface GraphTensor {
  name: string;
  dtype: Dtype;
  dims: readonly number[];
  /** Its elements in such a run, if it is a list of lengths. */
  numbers?: readonly number[] | undefined;
}

/** Adds one or a few operators on existing tensors; does nothing if no tensor fits. */
export type Step = (graph: GraphBuilder, random: Random) => void;

/** Builds a random graph, operator by operator, so that ONNX Runtime accepts most of them. */
export class GraphBuilder {
  readonly nodes: NodeFile[] = [];
  readonly constants: Record<string, ConstantTensor> = {};
  readonly inputs: Record<string, ValueFile> = {};
  readonly specs: InputSpec[] = [];
  readonly values: GraphTensor[] = [];

  constructor(
    readonly opset: number,
    readonly rows: number,
  ) {}

  input(dtype: Dtype, rest: readonly (number | readonly [symbol: string, length: number])[], first = "N"): GraphTensor {
    const name = `x${this.specs.length}`;
    const lengths = rest.map((d) => (typeof d === "number" ? d : d[1]));
    this.inputs[name] = [dtype, [first, ...rest.map((d) => (typeof d === "number" ? d : d[0]))]];
    this.specs.push({ name, dtype, rest: lengths });
    return this.#keep({ name, dtype, dims: [this.rows, ...lengths] });
  }

  /** A random fitting tensor, later ones more often; null if none fits. */
  pick(random: Random, fits: (value: GraphTensor) => boolean): GraphTensor | null {
    const found = this.values.filter(fits);
    if (found.length === 0) return null;
    const recent = random.below(3) > 0 ? found.slice(-2) : found;
    return random.pick(recent);
  }

  /** A float32 tensor of `least` to `most` dimensions. */
  float(random: Random, least = 1, most = 5): GraphTensor | null {
    return this.pick(random, ({ dims, dtype }) => dtype === "float32" && dims.length >= least && dims.length <= most);
  }

  list(random: Random): GraphTensor | null {
    return this.pick(random, ({ dims, numbers }) => numbers !== undefined && dims.length === 1);
  }

  /** A constant float32 tensor, as an initializer or as a node. */
  floats(random: Random, dims: readonly number[], from = -1, to = 1): string {
    const count = dims.reduce((size, length) => size * length, 1);
    return this.tensor(
      random,
      floats(
        dims,
        Array.from({ length: count }, () => from + random.unit() * (to - from)),
      ),
    );
  }

  ints(random: Random, ...data: readonly number[]): string {
    return this.tensor(random, ints(...data));
  }

  scalar(random: Random, data: number, dtype: Dtype = "int64"): string {
    return this.tensor(random, { dtype, dims: [], data: [data] });
  }

  tensor(random: Random, tensor: ConstantTensor): string {
    const name = `c${Object.keys(this.constants).length + this.nodes.length}`;
    if (random.below(4) > 0) this.constants[name] = tensor;
    else this.nodes.push({ type: "Constant", inputs: [], outputs: [name], attributes: { value: { tensor } } });
    return name;
  }

  /** Adds a node with one output for later steps. */
  add(
    type: string,
    inputs: readonly string[],
    made: Omit<GraphTensor, "name">,
    attributes: Record<string, Attribute> = {},
    domain = "",
  ): GraphTensor {
    const name = `v${this.nodes.length}`;
    this.nodes.push({ type, inputs, outputs: [name], attributes, domain });
    return this.#keep({ ...made, name });
  }

  /** Adds a node with several outputs; null: an omitted one. */
  addMany(
    type: string,
    inputs: readonly string[],
    made: readonly (Omit<GraphTensor, "name"> | null)[],
    attributes: Record<string, Attribute> = {},
  ): void {
    const at = this.nodes.length;
    const outputs = made.map((value, i) => (value === null ? "" : `v${at}_${i}`));
    this.nodes.push({ type, inputs, outputs, attributes });
    for (const [i, value] of made.entries()) if (value !== null) this.#keep({ ...value, name: outputs[i] as string });
  }

  /** Axes in the form of this operator set: an attribute, or from version `since` on an input. */
  axes(
    random: Random,
    axes: readonly number[],
    since: number,
  ): { inputs: string[]; attributes: Record<string, Attribute> } {
    return this.opset >= since
      ? { inputs: [this.ints(random, ...axes)], attributes: {} }
      : { inputs: [], attributes: { axes } };
  }

  graph(outputs: readonly GraphTensor[]): GraphFile {
    return {
      nodes: this.#nodesBehind(outputs),
      inputs: this.inputs,
      outputs: Object.fromEntries(outputs.map(({ dtype, name }) => [name, [dtype, null] as const])),
      constants: this.constants,
    };
  }

  /** The nodes that the outputs depend on: the proof may refuse unused nodes, although they change no output. */
  #nodesBehind(outputs: readonly GraphTensor[]): NodeFile[] {
    const wanted = new Set(outputs.map(({ name }) => name));
    const kept = this.nodes.toReversed().filter((node) => {
      if (!node.outputs.some((name) => wanted.has(name))) return false;
      for (const name of node.inputs) wanted.add(name);
      return true;
    });
    return kept.reverse();
  }

  #keep(value: GraphTensor): GraphTensor {
    this.values.push(value);
    return value;
  }
}

/**
 * With a Squeeze without axes, which removes other dimensions in a run of one row, some operators crash ONNX Runtime.
 */
export const hasSqueezeWithoutAxes = ({ nodes }: GraphBuilder): boolean =>
  nodes.some(({ attributes, inputs, type }) => type === "Squeeze" && inputs.length === 1 && !attributes?.axes);

/** Some also crash it with an empty tensor, or one shorter than its counterpart. */
export const mayHaveEmptyTensor = ({ nodes }: GraphBuilder): boolean => nodes.some(({ type }) => shortening.has(type));

const shortening: ReadonlySet<string> = new Set(["Slice", "Resize", "Upsample", "GatherND", "LSTM", "GRU", "RNN"]);

/** A random axis; `written` may count from the end, as a negative number. */
export function anyAxis(random: Random, rank: number): { axis: number; written: number } {
  const axis = random.below(rank);
  return { axis, written: random.below(3) === 0 ? axis - rank : axis };
}

/** The dimensions of a broadcast of two; null if they do not fit. */
export function broadcastDims(a: readonly number[], b: readonly number[]): number[] | null {
  const rank = Math.max(a.length, b.length);
  const dims: number[] = [];
  for (let d = 0; d < rank; d++) {
    const [x, y] = [a[a.length - rank + d] ?? 1, b[b.length - rank + d] ?? 1];
    if (x !== y && x !== 1 && y !== 1) return null;
    dims.push(x === 1 ? y : x);
  }
  return dims;
}

export const sizeOfDims = (dims: readonly number[]): number => dims.reduce((size, length) => size * length, 1);
