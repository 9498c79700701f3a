import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { proveRows } from "@millrace/workers/graph/prove-rows.js";
import { readOnnx } from "@millrace/workers/graph/read-onnx.js";
import protobuf from "protobufjs";
import { afterAll, expect, test } from "vitest";
import { floats, ints, type ModelFile, node, onnxFile } from "../support/models/onnx-file.js";

const folder = mkdtempSync(join(tmpdir(), "millrace-row-files-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const schema = protobuf.parse(readFileSync(new URL("../../workers/graph/onnx.proto", import.meta.url), "utf8"), {
  keepCase: true,
}).root;
const modelType = schema.lookupType("onnx.ModelProto");

interface RawModel {
  graph: { initializer: object[]; sparse_initializer: object[]; input: object[]; node: { attribute: object[] }[] };
  opset_import: { domain: string; version: number }[];
}

/** Whether a file is proven, after `change` to the written message. */
function isProven(file: Omit<ModelFile, "inputs" | "outputs"> & Partial<ModelFile>, change?: (raw: RawModel) => void) {
  const inputs = { x: ["float32", ["N", 2]] } as const;
  const bytes = onnxFile({ inputs, outputs: { y: ["float32", null] }, ...file });
  const raw = modelType.toObject(modelType.decode(bytes), { defaults: false, arrays: true }) as unknown as RawModel;
  change?.(raw);
  const path = join(folder, "model.onnx");
  writeFileSync(path, modelType.encode(modelType.fromObject(raw)).finish());
  return proveRows(readOnnx(path)).proven;
}

const int64List = (...data: number[]) => {
  const bytes = Buffer.alloc(8 * data.length);
  for (const [i, n] of data.entries()) bytes.writeBigInt64LE(BigInt(n), 8 * i);
  return bytes;
};

test("the indices of a sparse tensor do not shadow an input of the same name", () => {
  const graph = {
    nodes: [node("ReduceSum", ["x"], ["all"], { keepdims: 0 }), node("Add", ["z", "all"], ["y"])],
    inputs: { x: ["float32", ["N", 2]], z: ["float32", ["N", 2]] },
  } as const;
  expect(isProven(graph)).toBe(false);
  const named = (raw: RawModel) =>
    raw.graph.sparse_initializer.push({
      dims: [2],
      values: { name: "w", data_type: 1, dims: [1], raw_data: Buffer.alloc(4) },
      indices: { name: "x", data_type: 7, dims: [1], raw_data: int64List(0) },
    });
  expect(isProven(graph, named)).toBe(false);
});

test("a tensor with its numbers in two fields is read like by ONNX Runtime", () => {
  const nodes = [node("Reshape", ["x", "s"], ["y"])];
  expect(isProven({ nodes, constants: { s: ints(-1, 2) } })).toBe(true);
  const listed = (raw: RawModel) => Object.assign(raw.graph.initializer[0] as object, { int64_data: [-1, 2] });
  expect(isProven({ nodes, constants: { s: ints(2, -1) } }, listed)).toBe(false);
});

test("an attribute by reference, or without a value, is 0, as in ONNX Runtime", () => {
  const nodes = [node("Softmax", ["x"], ["y"], { axis: 1 })];
  const inputs = { x: ["float32", ["N", 2]] } as const;
  expect(isProven({ nodes, inputs })).toBe(true);
  const byReference = (raw: RawModel) => {
    (raw.graph.node[0] as { attribute: object[] }).attribute = [{ name: "axis", type: 2, ref_attr_name: "k" }];
  };
  expect(isProven({ nodes, inputs }, byReference)).toBe(false);
});

test("of two versions of an operator set the last one counts, as in ONNX Runtime", () => {
  const transposed = {
    opset: 13,
    inputs: { x: ["float32", ["N", 2, 2]] },
    nodes: [
      node("Transpose", ["x"], ["t"], { perm: [1, 2, 0] }),
      node("Softmax", ["t"], ["u"], { axis: 1 }),
      node("Transpose", ["u"], ["y"], { perm: [2, 0, 1] }),
    ],
  } as const;
  expect(isProven(transposed)).toBe(true);
  expect(isProven(transposed, (raw) => raw.opset_import.push({ domain: "ai.onnx", version: 11 }))).toBe(false);
});

test("a function of the file is not taken for the operator of the same name, in any spelling of its domain", () => {
  const nodes = [node("Relu", ["x"], ["y"])];
  const own = { name: "Relu", inputs: ["a"], outputs: ["b"], nodes: [node("ReduceSum", ["a"], ["b"])] };
  expect(isProven({ nodes })).toBe(true);
  for (const domain of ["", "ai.onnx"]) expect(isProven({ nodes, functions: [{ ...own, domain }] })).toBe(false);
});

test("sums that overflow are not lengths", () => {
  const nodes = [node("Add", ["most", "one"], ["end"]), node("Slice", ["x", "zero", "end"], ["y"])];
  const most = { dtype: "int64", dims: [1], data: [2n ** 63n - 1n] } as const;
  expect(isProven({ nodes, constants: { most, one: ints(1), zero: ints(0) } })).toBe(false);
});

test("an end that is cast to a smaller type may change its value", () => {
  const nodes = [node("Cast", ["most"], ["end"], { to: 6 }), node("Slice", ["x", "zero", "end"], ["y"])];
  const most = { dtype: "int64", dims: [1], data: [2n ** 63n - 1n] } as const;
  const zero = { dtype: "int32", dims: [1], data: [0] } as const;
  expect(isProven({ nodes, constants: { most, zero } })).toBe(false);
});

test("lengths are not followed through types too small for them", () => {
  const nodes = (to: number) => [
    node("Shape", ["x"], ["s"]),
    node("Cast", ["s"], ["small"], { to }),
    node("Cast", ["small"], ["t"], { to: 7 }),
    node("Reshape", ["x", "t"], ["y"]),
  ];
  for (const wide of [1, 6, 7, 11]) expect(isProven({ nodes: nodes(wide) }), `${wide}`).toBe(true);
  for (const narrow of [2, 3, 5, 9, 10, 16]) expect(isProven({ nodes: nodes(narrow) }), `${narrow}`).toBe(false);
});

test("a ReduceProd over no axes may be the identity", () => {
  const nodes = (attributes: Record<string, number>) => [
    node("Shape", ["x"], ["s"]),
    node("ReduceProd", ["s"], ["n"], { keepdims: 1, ...attributes }),
    node("Expand", ["half", "n"], ["t"]),
    node("Reshape", ["t", "two"], ["y"]),
  ];
  const file = { opset: 18, constants: { half: floats([1], [0.5]), two: ints(-1, 2) } };
  expect(isProven({ ...file, nodes: nodes({}) })).toBe(true);
  // As the identity it gives [N, 2], and the last step changes nothing, but the proof must know a list of two lengths.
  expect(
    isProven({
      ...file,
      nodes: nodes({ noop_with_empty_axes: 1 })
        .slice(0, 3)
        .concat(node("Flatten", ["t"], ["y"], { axis: 0 })),
    }),
  ).toBe(false);
});

test("no name of a dimension collides with a length made by an operator", () => {
  const inputs = (name: string) => ({ x: ["float32", ["N", 8]], z: ["float32", ["N", name]] }) as const;
  const nodes = [
    node("Slice", ["x", "from", "far", "axes"], ["t"]),
    node("Abs", ["far"], ["to"]),
    node("Slice", ["x", "from", "to", "axes"], ["part"]),
    node("Transpose", ["part"], ["turned"]),
    node("Shape", ["z"], ["s"]),
    node("Gather", ["s", "axes"], ["width"]),
    node("Concat", ["width", "rest"], ["shape"], { axis: 0 }),
    node("Reshape", ["turned", "shape"], ["u"]),
    node("Transpose", ["u"], ["y"]),
  ];
  const constants = { from: ints(0), far: ints(4), axes: ints(1), rest: ints(-1) };
  for (const name of ["dimension of operator 2, 0", "operator 2, 0", "some length of operator 2, 0"]) {
    expect(isProven({ nodes, inputs: inputs(name), constants })).toBe(false);
  }
});

test("subgraphs, other domains, inputs of one row and fixed outputs are not proven", () => {
  const inner = { nodes: [node("Relu", ["x"], ["b"])], inputs: {}, outputs: { b: ["float32", null] } } as const;
  const branch = node("If", ["c"], ["y"], { then_branch: { graph: inner }, else_branch: { graph: inner } });
  const constants = { c: { dtype: "bool", dims: [], data: [1] } } as const;
  expect(isProven({ nodes: [branch], constants })).toBe(false);
  expect(isProven({ nodes: [node("Gelu", ["x"], ["y"], {}, "com.microsoft")] })).toBe(false);
  expect(isProven({ nodes: [node("Relu", ["x"], ["y"])], inputs: { x: ["float32", [1, 2]] } })).toBe(false);
  expect(isProven({ nodes: [node("Relu", ["x"], ["y"])], inputs: { x: ["float32", ["N", "N"]] } })).toBe(false);
  expect(isProven({ nodes: [node("Relu", ["x"], ["y"])], inputs: { x: ["float32", null] } })).toBe(false);
  expect(isProven({ nodes: [], constants: { y: floats([2, 2], [1, 2, 3, 4]) } })).toBe(false);
  expect(isProven({ nodes: [], outputs: { x: ["float32", null] } })).toBe(true);
  for (const drawing of ["RandomNormalLike", "Bernoulli"])
    expect(isProven({ nodes: [node(drawing, ["x"], ["y"])] })).toBe(false);
});
