import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sessionOptions } from "@millrace/workers/slot/engine.js";
import { readableFault } from "@millrace/workers/slot/engine-fault.js";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { startWithModels } from "../support/models/made-models.js";
import { floats, ints, type ModelFile, type NodeFile, node, onnxFile } from "../support/models/onnx-file.js";

const x: ModelFile["inputs"] = { x: ["float32", ["N", 3]] };
const y: ModelFile["outputs"] = { y: ["float32", null] };
const one = (nodes: NodeFile[], rest: Partial<ModelFile> = {}): Buffer =>
  onnxFile({ nodes, inputs: x, outputs: y, ...rest });
const good = one([node("Identity", ["x"], ["y"])]);

const badFiles: Record<string, Buffer> = {
  empty: Buffer.alloc(0),
  garbage: Buffer.from("not an onnx file at all, really not"),
  truncated: good.subarray(0, good.length - 12),
  "unknown operator": one([node("FrobnicateTensor", ["x"], ["y"])]),
  "unknown domain": one([node("Foo", ["x"], ["y"], {}, "com.example")], { opsets: { "com.example": 1 } }),
  "future opset": one([node("Identity", ["x"], ["y"])], { opset: 99 }),
  "missing input": one([node("Add", ["x", "nowhere"], ["y"])]),
  "wrong types": one([node("Add", ["x", "k"], ["y"])], { constants: { k: ints(1, 2, 3) } }),
  "too many inputs": one([node("Relu", ["x", "x", "x"], ["y"])]),
  "bad attribute": one([node("Concat", ["x", "x"], ["y"])]),
  "declared otherwise": one([node("Identity", ["x"], ["y"])], { outputs: { y: ["int64", ["N", 3]] } }),
  "static mismatch": one([node("MatMul", ["x", "k"], ["y"])], {
    constants: { k: floats([5, 2], new Array(10).fill(1)) },
  }),
  cycle: one([node("Add", ["x", "b"], ["a"]), node("Add", ["x", "a"], ["b"]), node("Identity", ["b"], ["y"])]),
  twice: one([node("Relu", ["x"], ["y"]), node("Abs", ["x"], ["y"])]),
  "no output": one([node("Relu", ["x"], ["z"])]),
  "not implemented": one([
    node("Cast", ["x"], ["i"], { to: 16 }),
    node("Softmax", ["i"], ["b"]),
    node("Cast", ["b"], ["y"], { to: 1 }),
  ]),
  "bad axis": one([node("Softmax", ["x"], ["y"], { axis: 7 })]),
};
const dyn: ModelFile["inputs"] = { x: ["float32", null] };
const badRuns: Record<string, [Buffer, Record<string, Tensor>]> = {
  "missing feed": [good, {}],
  "wrong rank": [good, { x: new Tensor("float32", [1, 2, 3], [3]) }],
  "wrong width": [good, { x: new Tensor("float32", [1, 2], [1, 2]) }],
  "wrong dtype": [good, { x: new Tensor("float64", [1, 2, 3], [1, 3]) }],
  "unknown feed": [good, { z: new Tensor("float32", [1, 2, 3], [1, 3]) }],
  reshape: [
    one([node("Reshape", ["x", "s"], ["y"])], { constants: { s: ints(2, 2) } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  broadcast: [
    one([node("Add", ["x", "k"], ["y"])], { inputs: dyn, constants: { k: floats([2], [1, 1]) } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  matmul: [
    one([node("MatMul", ["x", "k"], ["y"])], { inputs: dyn, constants: { k: floats([5, 2], new Array(10).fill(1)) } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  gemm: [
    one([node("Gemm", ["x", "k"], ["y"])], { inputs: dyn, constants: { k: floats([5, 2], new Array(10).fill(1)) } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  gather: [
    one([node("Gather", ["k", "i"], ["y"])], {
      inputs: { i: ["int64", ["N"]] },
      constants: { k: floats([2], [1, 1]) },
    }),
    { i: new Tensor("int64", [7n], [1]) },
  ],
  "gather elements": [
    one([node("GatherElements", ["k", "i"], ["y"])], {
      inputs: { i: ["int64", ["N"]] },
      constants: { k: floats([2], [1, 1]) },
    }),
    { i: new Tensor("int64", [-9n], [1]) },
  ],
  concat: [
    one([node("Concat", ["x", "k"], ["y"], { axis: 1 })], {
      inputs: dyn,
      constants: { k: floats([5, 2], new Array(10).fill(1)) },
    }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  expand: [
    one([node("Expand", ["x", "s"], ["y"])], { inputs: dyn, constants: { s: ints(2, 2) } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  squeeze: [
    one([node("Squeeze", ["x", "s"], ["y"])], { inputs: dyn, constants: { s: ints(1) } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  slice: [
    one([node("Slice", ["x", "i", "i"], ["y"])], { inputs: { ...x, i: ["int64", ["M"]] } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]), i: new Tensor("int64", [0n, 0n, 0n, 0n], [4]) },
  ],
  pad: [
    one([node("Pad", ["x", "i"], ["y"])], { inputs: { ...x, i: ["int64", ["M"]] } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]), i: new Tensor("int64", [0n], [1]) },
  ],
  huge: [
    one([node("Expand", ["x", "i"], ["y"])], { inputs: { ...x, i: ["int64", ["M"]] } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]), i: new Tensor("int64", [1099511627776n, 1099511627776n, 3n], [3]) },
  ],
  "negative shape": [
    one([node("ConstantOfShape", ["i"], ["y"])], { inputs: { i: ["int64", ["M"]] } }),
    { i: new Tensor("int64", [-5n], [1]) },
  ],
  conv: [
    one([node("Conv", ["x", "k"], ["y"])], {
      inputs: dyn,
      constants: { k: floats([1, 2, 3, 3], new Array(18).fill(1)) },
    }),
    { x: new Tensor("float32", new Array(9).fill(1), [1, 1, 3, 3]) },
  ],
  cast: [
    one([node("Cast", ["s"], ["y"], { to: 1 })], { inputs: { s: ["string", ["N"]] } }),
    { s: new Tensor("string", ["abc"], [1]) },
  ],
  split: [
    one([node("Split", ["x", "k"], ["y", "z"], { axis: 1 })], { inputs: dyn, constants: { k: ints(1, 1) } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  onehot: [
    one([node("OneHot", ["i", "d", "v"], ["y"])], {
      inputs: { i: ["int64", ["M"]], d: ["int64", []] },
      constants: { v: floats([2], [0, 1]) },
    }),
    { i: new Tensor("int64", [1n], [1]), d: new Tensor("int64", [-5n], []) },
  ],
  scatter: [
    one([node("ScatterElements", ["x", "i", "x"], ["y"], { axis: 1 })], {
      inputs: { ...x, i: ["int64", ["N", 3]] },
    }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]), i: new Tensor("int64", [9n, 9n, 9n], [1, 3]) },
  ],
  topk: [
    one([node("TopK", ["x", "k"], ["y", "i"])], { inputs: { ...x, k: ["int64", [1]] } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]), k: new Tensor("int64", [9n], [1]) },
  ],
  einsum: [
    one([node("Einsum", ["x", "k"], ["y"], { equation: "ij,jk->ik" })], {
      inputs: dyn,
      constants: { k: floats([5, 2], new Array(10).fill(1)) },
    }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  range: [
    one([node("Range", ["i", "i", "i"], ["y"])], { inputs: { i: ["float32", []] } }),
    { i: new Tensor("float32", [0], []) },
  ],
  tile: [
    one([node("Tile", ["x", "i"], ["y"])], { inputs: { ...x, i: ["int64", ["M"]] } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]), i: new Tensor("int64", [1n], [1]) },
  ],
  transpose: [
    one([node("Transpose", ["x"], ["y"], { perm: [2, 1, 0] })], { inputs: dyn }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  resize: [
    one([node("Resize", ["x", "", "s"], ["y"])], { inputs: { ...x, s: ["float32", ["K"]] } }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]), s: new Tensor("float32", [1, -1], [2]) },
  ],
  labels: [
    one(
      [
        node(
          "LabelEncoder",
          ["x"],
          ["y"],
          { keys_floats: { floats: [1] }, values_floats: { floats: [1] } },
          "ai.onnx.ml",
        ),
      ],
      { inputs: dyn },
    ),
    {},
  ],
  scaler: [
    one([node("Scaler", ["x"], ["y"], { offset: { floats: [1, 2] }, scale: { floats: [1, 2] } }, "ai.onnx.ml")], {
      inputs: dyn,
    }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  linear: [
    one([node("LinearRegressor", ["x"], ["y"], { coefficients: { floats: [1, 2] }, targets: 1 }, "ai.onnx.ml")], {
      inputs: dyn,
    }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
  "array feature": [
    one([node("ArrayFeatureExtractor", ["x", "k"], ["y"], {}, "ai.onnx.ml")], {
      inputs: dyn,
      constants: { k: ints(9) },
    }),
    { x: new Tensor("float32", [1, 2, 3], [1, 3]) },
  ],
};

/** What an author or a caller needs of some of the messages. */
const useful: Record<string, string> = {
  empty: "ModelProto does not have a graph",
  garbage: "Protobuf parsing failed",
  "unknown operator": "No Op registered for FrobnicateTensor with domain_version of 17",
  "unknown domain": "com.example:Foo(-1) is not a registered function/op",
  "future opset": "Current official support for domain ai.onnx is till opset",
  "missing input": "Node input 'nowhere' is not a graph input",
  "wrong types": "bound to different types (tensor(float) and tensor(int64)",
  "too many inputs": "Relu:14) has input size 3 not in range [min=1, max=1]",
  "bad attribute": "Required attribute 'axis' is missing",
  "static mismatch": "Op (MatMul) [ShapeInferenceError] Incompatible dimensions for matrix multiplication",
  "no output": "Graph output (y) does not exist in the graph",
  "bad axis": "'axis' must be in [-2 , 1]. Its actual value is: 7",
  "wrong width": "index: 1 Got: 2 Expected: 3",
  reshape: "Status Message: The input tensor cannot be reshaped to the requested shape. Input shape:{1,3}",
  broadcast: "Status Message: Attempting to broadcast an axis by a dimension other than 1. 2 by 3",
  matmul: "Status Message: MatMul dimension mismatch",
  "gather elements": "Status Message: GatherElements op: Out of range value in index tensor",
  concat: "Status Message: Non concat axis dimensions must match: Axis 0 has mismatched dimensions of 5 and 1",
  squeeze: "Status Message: Dimension of input 1 must be 1 instead of 3. shape={1,3}",
  pad: "Status Message: Pads tensor size should be equal to twice the input dimension count",
  huge: "Status Message: Integer overflow",
  "negative shape": "Status Message: Tensor shape.Size() must be >= 0",
  cast: "Status Message: a text is not a number",
  resize: "Status Message: Scale value should be greater than 0.",
  linear: "Status Message: LinearRegressor: coefficients length (2) must be at least targets (1) * features (3)",
};

/** Source files, functions, types and addresses of C++, and paths of this machine. */
const privateWords = new RegExp(
  [
    ...["::", "\\bstd\\b", "\\.(?:cc|cpp|h|hpp):\\d", "onnxruntime_src", "/tmp/", "[\\w.]+/[\\w.]+\\.(?:onnx|cc|h)\\b"],
    ...["\\bvoid \\w", "\\(const ", "\\[with ", "ptrdiff_t", "0x[0-9a-f]{6}", "ONNXRuntimeError", "was false"],
  ].join("|"),
);

describe("messages of ONNX Runtime", () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "millrace-messages-"));
  });
  afterAll(() => rm(dir, { recursive: true }));

  /** What a file that cannot be loaded, or a run of it that fails, is answered with by ONNX Runtime itself. */
  const messageOf = async (bytes: Buffer, feeds?: Record<string, Tensor>) => {
    const file = join(dir, "model.onnx");
    await writeFile(file, bytes);
    const refused = (fault: Error) => fault.message;
    const session = await InferenceSession.create(file, sessionOptions).catch(refused);
    if (typeof session === "string") return { file, message: session };
    const ran = feeds === undefined ? null : await session.run(feeds).catch(refused);
    await session.release();
    return { file, message: typeof ran === "string" ? ran : null };
  };

  test.each([...Object.keys(badFiles), ...Object.keys(badRuns)])(
    "for %s names no source, no symbol and no path, and says what is wrong",
    async (name) => {
      const [bytes, feeds] = badRuns[name] ?? [badFiles[name] as Buffer, undefined];
      const { file, message } = await messageOf(bytes, feeds);
      expect(message, "ONNX Runtime refuses it").not.toBeNull();
      const readable = readableFault(message as string, file, "model.onnx");
      expect(readable).not.toMatch(privateWords);
      expect(readable).not.toContain(dir);
      expect(readable.length).toBeGreaterThan(10);
      if (useful[name] !== undefined) expect(readable).toContain(useful[name]);
      // Once more changes nothing.
      expect(readableFault(readable)).toBe(readable);
    },
  );

  test.each([
    [
      "a/b.cc:1 auto a::F(int)::<lambda(std::ptrdiff_t)> const [with T = std::vector<int>] Too [many] rows",
      "Too [many] rows",
    ],
    ["C:\\src\\x.cpp:7 static bool N::f(g<int(*)(h)>) x[i] < y was false. Row 3 is wrong", "Row 3 is wrong"],
    ["x.cc:9 F [ONNXRuntimeError] : 2 : INVALID_ARGUMENT : k/y.h:3 void a::b() Too large", "Too large"],
    ["a/b.cc:1 void a::b(", "ONNX Runtime gives no reason"],
    ["a/b.cc:1 no function", "no function"],
    ["", "ONNX Runtime gives no reason"],
    ["Node (/encoder/layer.0/Add) Op (Add) fails at 1/2", "Node (/encoder/layer.0/Add) Op (Add) fails at 1/2"],
  ])("of other shapes are read too: %s", (message, readable) => expect(readableFault(message)).toBe(readable));

  test("reach callers, batches and operators only so", async () => {
    const reshaping: ModelFile = {
      nodes: [node("Reshape", ["x", "s"], ["y"])],
      inputs: x,
      outputs: y,
      constants: { s: ints(2, 2) },
    };
    const stack = await startWithModels({
      reshapes: { graph: reshaping },
      future: { graph: { nodes: [node("Identity", ["x"], ["y"])], inputs: x, outputs: y, opset: 99 } },
    });
    try {
      const { body } = await stack.predict("reshapes", { x: [[1, 2, 3]] });
      expect(body.error.detail).toBe(
        "the model cannot run this input: The input tensor cannot be reshaped to the requested shape. " +
          "Input shape:{1,3}, requested shape:{2,2}",
      );
      await eventually(async () => {
        const { refused } = (await stack.get("/v1/models")).body;
        expect(refused).toMatchObject([{ model: "future", reason: expect.stringContaining("till opset") }]);
        expect(JSON.stringify(refused)).not.toMatch(privateWords);
      });
      expect(JSON.stringify(stack.log)).not.toMatch(/onnxruntime_src|onnxruntime::/);
    } finally {
      await stack.close();
    }
  });
});
