import type { Dtype } from "@millrace/shared/tensors/dtype.js";
import type { InputSpec } from "../../support/models/joined-runs.js";
import {
  type Attribute,
  type ConstantTensor,
  type ModelFile,
  type NodeFile,
  node,
} from "../../support/models/onnx-file.js";

/** A small graph for one operator, and its inputs. */
export interface RowCase {
  file: ModelFile;
  inputs: readonly InputSpec[];
  /** False if ONNX Runtime cannot run it, or if no run can show that it mixes rows. */
  checkedByRuns: boolean;
}

/** Graphs of one operator of the rules: some that keep rows apart, some that mix them. */
export interface OperatorCases {
  type: string;
  domain: string;
  apart: readonly RowCase[];
  mixed: readonly RowCase[];
}

export interface CaseOptions {
  /** Inputs by name: dtype, and dimensions after the first, which is "N". */
  inputs?: Record<string, readonly [dtype: Dtype, ...rest: number[]]>;
  constants?: Record<string, ConstantTensor>;
  /** Attributes of the operator. */
  with?: Record<string, Attribute>;
  /** Input names of the operator; default: all inputs, then all constants. */
  takes?: readonly string[];
  gives?: readonly string[];
  /** Operators before and after it; the last output is `y`. */
  before?: readonly NodeFile[];
  after?: readonly NodeFile[];
  outputs?: Record<string, Dtype>;
  opset?: number;
  domain?: string;
  ml?: number;
  checkedByRuns?: boolean;
  /** Exclusive upper bound of integer inputs. */
  below?: number;
  texts?: readonly string[];
}

/** A graph of one operator, with the surrounding ones from `options`. */
export function rowCase(type: string, options: CaseOptions = {}): RowCase {
  const { after = [], before = [], below = 4, constants = {}, domain = "", inputs = { x: ["float32", 3] } } = options;
  const {
    gives = ["y"],
    ml = 3,
    opset = 17,
    outputs = { y: "float32" },
    checkedByRuns = true,
    texts = ["a", "b"],
  } = options;
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
    checkedByRuns,
  };
}

/** Transposes a table: rows of `from` become columns of `to`. */
export const transposed = (from: string, to = "y"): NodeFile => node("Transpose", [from], [to]);

/** Graphs of one operator; each of `mixed` overrides options of the first graph. */
export const operator = (type: string, apart: CaseOptions, ...mixed: readonly CaseOptions[]): OperatorCases => ({
  type,
  domain: apart.domain ?? "",
  apart: [rowCase(type, apart)],
  mixed: mixed.map((other) => rowCase(type, { ...apart, ...other })),
});

/** The cases with more graphs that keep rows apart. */
export const withMoreApart = (cases: OperatorCases, ...apart: readonly RowCase[]): OperatorCases => ({
  ...cases,
  apart: [...cases.apart, ...apart],
});
