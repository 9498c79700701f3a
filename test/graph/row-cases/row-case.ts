import type { Dtype } from "@millrace/shared/tensors/dtype.js";
import type { InputSpec } from "../../support/models/joined-runs.js";
import {
  type Attribute,
  type ConstantTensor,
  type ModelFile,
  type NodeFile,
  node,
} from "../../support/models/onnx-file.js";

/** A small graph for one operator, and what it is fed. */
export interface RowCase {
  file: ModelFile;
  inputs: readonly InputSpec[];
  /** False where ONNX Runtime has no way to run it, or where no run of it can show that it mixes rows. */
  shows: boolean;
}

/** For one operator of the rules: graphs that keep rows apart, and graphs that do not. */
export interface OperatorCases {
  type: string;
  domain: string;
  apart: readonly RowCase[];
  mixed: readonly RowCase[];
}

export interface CaseOptions {
  /** Inputs by name: the data type and the dimensions after the first one, which is "N". */
  inputs?: Record<string, readonly [dtype: Dtype, ...rest: number[]]>;
  constants?: Record<string, ConstantTensor>;
  /** Attributes of the operator. */
  with?: Record<string, Attribute>;
  /** What the operator takes: all inputs, then all constants, unless it is said. */
  takes?: readonly string[];
  gives?: readonly string[];
  /** Operators before and behind; the last output is `y`. */
  before?: readonly NodeFile[];
  after?: readonly NodeFile[];
  outputs?: Record<string, Dtype>;
  opset?: number;
  domain?: string;
  ml?: number;
  shows?: boolean;
  /** Whole numbers that are fed are below this. */
  below?: number;
  texts?: readonly string[];
}

/** A graph of one operator, and of whatever is said to be around it. */
export function rowCase(type: string, options: CaseOptions = {}): RowCase {
  const { after = [], before = [], below = 4, constants = {}, domain = "", inputs = { x: ["float32", 3] } } = options;
  const { gives = ["y"], ml = 3, opset = 17, outputs = { y: "float32" }, shows = true, texts = ["a", "b"] } = options;
  const takes = options.takes ?? [...Object.keys(inputs), ...Object.keys(constants)];
  const specs = Object.entries(inputs).map(([name, [dtype, ...rest]]) => ({ name, dtype, rest, below, texts }));
  return {
    file: {
      nodes: [...before, node(type, takes, gives, options.with ?? {}, domain), ...after],
      inputs: Object.fromEntries(specs.map(({ dtype, name, rest }) => [name, [dtype, ["N", ...rest]]])),
      outputs: Object.fromEntries(Object.entries(outputs).map(([name, dtype]) => [name, [dtype, null]])),
      constants,
      opset,
      opsets: { "ai.onnx.ml": ml },
    },
    inputs: specs,
    shows,
  };
}

/** Rows of a table as its columns: the output of `from` has the rows along its second dimension. */
export const turned = (from: string, to = "y"): NodeFile => node("Transpose", [from], [to]);

/** Graphs of one operator; `mixed` says what of the first graph's options is otherwise. */
export const operator = (type: string, apart: CaseOptions, ...mixed: readonly CaseOptions[]): OperatorCases => ({
  type,
  domain: apart.domain ?? "",
  apart: [rowCase(type, apart)],
  mixed: mixed.map((other) => rowCase(type, { ...apart, ...other })),
});

/** As `operator`, with more graphs that keep rows apart, each said by what is otherwise. */
export const also = (cases: OperatorCases, ...apart: readonly RowCase[]): OperatorCases => ({
  ...cases,
  apart: [...cases.apart, ...apart],
});
