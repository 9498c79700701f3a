import { readFileSync } from "node:fs";
import protobuf from "protobufjs";

/**
 * The schema for reading ONNX files: the published `onnx.proto`, except that large parts stay bytes until requested
 * (attributes, numbers of tensors) or are skipped.
 */
export const onnxSchema = loadSchema();

function loadSchema() {
  const text = readFileSync(new URL("../../graph/onnx.proto", import.meta.url), "utf8");
  // 64-bit integers become numbers; lengths never exceed 2^53.
  protobuf.util.Long = null as never;
  protobuf.configure();
  const { root } = protobuf.parse(text, { keepCase: true });
  const space = root.lookup("onnx") as protobuf.Namespace;
  const attribute = root.lookupType("onnx.AttributeProto");
  const longAttribute = new protobuf.Type("LongAttribute");
  for (const name of ["ints", "floats", "strings"]) {
    const { id, rule, type } = attribute.get(name) as protobuf.Field;
    longAttribute.add(new protobuf.Field(name, id, type, rule));
  }
  space.add(longAttribute);
  for (const name of ["ints", "floats", "strings", "type_protos", "tp"]) {
    attribute.remove(attribute.get(name) as protobuf.Field);
  }
  // On the wire, a packed list and a message are both length-delimited bytes.
  readAsBytes(root.lookupType("onnx.NodeProto"), ["attribute"]);
  const tensor = root.lookupType("onnx.TensorProto");
  readAsBytes(tensor, ["float_data", "int32_data", "int64_data", "double_data"]);
  for (const name of ["string_data", "uint64_data"]) tensor.remove(tensor.get(name) as protobuf.Field);
  return { model: root.lookupType("onnx.ModelProto"), shortAttribute: attribute, longAttribute };
}

function readAsBytes(type: protobuf.Type, fields: readonly string[]): void {
  for (const name of fields) {
    const field = type.get(name) as protobuf.Field;
    type.remove(field);
    type.add(new protobuf.Field(name, field.id, "bytes", "repeated"));
  }
}

export interface RawModel {
  graph: RawGraph | null;
  opset_import: { domain: string; version: number }[];
  functions: { domain: string; name: string; node: RawNode[] }[];
  training_info: { algorithm: RawGraph | null; initialization: RawGraph | null }[];
}

export interface RawGraph {
  node: RawNode[];
  input: RawValue[];
  output: RawValue[];
  initializer: RawTensor[];
  sparse_initializer: RawSparseTensor[];
}

export interface RawNode {
  name: string;
  op_type: string;
  domain: string;
  input: string[];
  output: string[];
  attribute: Uint8Array[];
}

export interface RawAttribute {
  name: string;
  i: number;
  f: number;
  s: Uint8Array;
  t: RawTensor | null;
  g: RawGraph | null;
  sparse_tensor: RawSparseTensor | null;
  tensors: RawTensor[];
  graphs: RawGraph[];
  sparse_tensors: RawSparseTensor[];
  ints: number[];
  floats: number[];
  strings: Uint8Array[];
}

export interface RawValue {
  name: string;
  type?: { tensor_type?: { shape?: { dim: { dim_value: number; dim_param: string }[] } | null } | null } | null;
}

export interface RawTensor {
  name: string;
  dims: number[];
  data_type: number;
  data_location: number;
  external_data: { key: string; value: string }[];
  raw_data: Uint8Array;
  float_data: Uint8Array[];
  int32_data: Uint8Array[];
  int64_data: Uint8Array[];
  double_data: Uint8Array[];
}

export interface RawSparseTensor {
  dims: number[];
  indices: RawTensor | null;
  values: RawTensor | null;
}
