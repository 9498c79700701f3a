import { readFileSync } from "node:fs";
import { type Dtype, elementBytes } from "@millrace/shared/tensors/dtype.js";
import { toFloat16Bits } from "@millrace/shared/tensors/float16.js";
import protobuf from "protobufjs";

const root = protobuf.parse(readFileSync(new URL("../../../workers/graph/onnx.proto", import.meta.url), "utf8"), {
  keepCase: true,
}).root;
const modelType = root.lookupType("onnx.ModelProto");

/** ONNX's numbers of data types, by ONNX Runtime's names. */
const typeNumbers: Record<Dtype | "bfloat16", number> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
  bfloat16: 16,
};

export interface ConstantTensor {
  dtype: Dtype;
  dims: readonly number[];
  data: readonly (number | bigint | string)[];
}

export type Attribute =
  | number
  | string
  | readonly number[]
  | { float: number }
  | { floats: readonly number[] }
  | {
      strings: readonly string[];
    }
  | { tensor: ConstantTensor }
  | { graph: GraphFile };

export interface NodeFile {
  type: string;
  inputs: readonly string[];
  outputs: readonly string[];
  attributes?: Record<string, Attribute>;
  domain?: string;
  name?: string;
}

/** A value of a graph: its data type and shape; null: no declared shape. */
export type ValueFile = readonly [dtype: Dtype | "bfloat16", shape: readonly (number | string)[] | null];

export interface GraphFile {
  nodes: readonly NodeFile[];
  inputs: Record<string, ValueFile>;
  outputs: Record<string, ValueFile>;
  constants?: Record<string, ConstantTensor>;
}

export interface ModelFile extends GraphFile {
  opset?: number;
  /** Further operator sets by domain; `ai.onnx.ml` 3 is always included. */
  opsets?: Record<string, number>;
  functions?: readonly { domain: string; name: string; inputs: string[]; outputs: string[]; nodes: NodeFile[] }[];
}

/** A small float32 tensor. */
export const floats = (dims: readonly number[], data: readonly number[]): ConstantTensor => ({
  dtype: "float32",
  dims,
  data,
});

/** A list of int64, the type of shapes and axes. */
export const ints = (...data: readonly number[]): ConstantTensor => ({ dtype: "int64", dims: [data.length], data });

export const node = (
  type: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Record<string, Attribute> = {},
  domain = "",
): NodeFile => ({ type, inputs, outputs, attributes, domain });

/** The bytes of an ONNX file. */
export function onnxFile(model: ModelFile): Buffer {
  const { functions = [], opset = 17, opsets = {} } = model;
  const imports = Object.entries({ "": opset, "ai.onnx.ml": 3, ...opsets });
  const message = {
    ir_version: 9,
    opset_import: imports.map(([domain, version]) => ({ domain, version })),
    graph: graphMessage(model, "graph"),
    functions: functions.map(({ domain, inputs, name, nodes, outputs }) => ({
      domain,
      name,
      input: inputs,
      output: outputs,
      node: nodes.map(nodeMessage),
      opset_import: imports.map(([own, version]) => ({ domain: own, version })),
    })),
  };
  return Buffer.from(modelType.encode(modelType.fromObject(message)).finish());
}

const graphMessage = ({ constants = {}, inputs, nodes, outputs }: GraphFile, name: string): object => ({
  name,
  node: nodes.map(nodeMessage),
  input: Object.entries(inputs).map(valueMessage),
  output: Object.entries(outputs).map(valueMessage),
  initializer: Object.entries(constants).map(([own, tensor]) => tensorMessage(own, tensor)),
});

const nodeMessage = ({ attributes = {}, domain = "", inputs, name = "", outputs, type }: NodeFile): object => ({
  op_type: type,
  input: inputs,
  output: outputs,
  name,
  domain,
  attribute: Object.entries(attributes).map(([own, value]) => attributeMessage(own, value)),
});

const valueMessage = ([name, [dtype, shape]]: [string, ValueFile]): object => ({
  name,
  type: {
    tensor_type: {
      elem_type: typeNumbers[dtype],
      ...(shape !== null && {
        shape: {
          dim: shape.map((d) => (typeof d === "number" ? { dim_value: d } : d === "" ? {} : { dim_param: d })),
        },
      }),
    },
  },
});

function attributeMessage(name: string, value: Attribute): object {
  const bytes = (text: string) => Buffer.from(text);
  if (typeof value === "number") return { name, type: 2, i: value };
  if (typeof value === "string") return { name, type: 3, s: bytes(value) };
  if (Array.isArray(value)) return { name, type: 7, ints: value };
  const typed = value as Exclude<Attribute, number | string | readonly number[]>;
  if ("float" in typed) return { name, type: 1, f: typed.float };
  if ("floats" in typed) return { name, type: 6, floats: typed.floats };
  if ("strings" in typed) return { name, type: 8, strings: typed.strings.map(bytes) };
  if ("tensor" in typed) return { name, type: 4, t: tensorMessage("", typed.tensor) };
  return { name, type: 5, g: graphMessage(typed.graph, name) };
}

function tensorMessage(name: string, { data, dims, dtype }: ConstantTensor): object {
  const common = { name, dims, data_type: typeNumbers[dtype] };
  if (dtype === "string") return { ...common, string_data: data.map((text) => Buffer.from(String(text))) };
  return { ...common, raw_data: rawBytes(dtype, data as readonly (number | bigint)[]) };
}

function rawBytes(dtype: Exclude<Dtype, "string">, data: readonly (number | bigint)[]): Buffer {
  const size = elementBytes[dtype];
  const bytes = Buffer.alloc(data.length * size);
  data.forEach((value, i) => {
    const at = i * size;
    if (dtype === "float32") bytes.writeFloatLE(Number(value), at);
    else if (dtype === "float64") bytes.writeDoubleLE(Number(value), at);
    else if (dtype === "float16") bytes.writeUInt16LE(toFloat16Bits(Number(value)), at);
    else if (dtype === "int64") bytes.writeBigInt64LE(BigInt(value), at);
    else if (dtype === "uint64") bytes.writeBigUInt64LE(BigInt(value), at);
    else if (dtype.startsWith("int")) bytes.writeIntLE(Number(value), at, size);
    else bytes.writeUIntLE(Number(value), at, size);
  });
  return bytes;
}
