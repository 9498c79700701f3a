import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bytesOf, float32, type InferTensor, infer, inferBody } from "../support/http/infer.js";
import { assertProblem } from "../support/http/problem.js";
import { TestStack } from "../support/stack/stack.js";

const models = ["echo-float32", "echo-int64", "echo-bool", "echo-string", "echo-float16", "scalars", "two-in-two-out"];
const x = { name: "x", datatype: "FP32", shape: [1, 3] };
const three = [1, 2, 3];
const ids = { name: "ids", datatype: "INT64", shape: [1, 2], data: [1, 2] };
const weights = { name: "weights", datatype: "FP32", shape: [1, 2], data: [1, 2] };
const int64 = { name: "x", datatype: "INT64", shape: [1, 3] };
const text = { name: "x", datatype: "BYTES", shape: [1, 3] };

/** Inputs of a request, its model, and a part of the expected message. */
const wrongInputs: [what: string, model: string, inputs: unknown[], says: string][] = [
  ["an unknown input", "echo-float32", [{ ...x, name: "z", data: three }], '"z" is unknown'],
  ["a missing input", "two-in-two-out", [ids], '"weights" is missing'],
  [
    "an input twice",
    "echo-float32",
    [
      { ...x, data: three },
      { ...x, data: three },
    ],
    'duplicate input tensor "x"',
  ],
  ["another datatype", "echo-float32", [{ ...x, datatype: "FP64", data: three }], '"x" has datatype FP64'],
  ["a datatype of no model", "echo-float32", [{ ...x, datatype: "BF16", data: three }], '"x" has datatype BF16'],
  ["too few dimensions", "echo-float32", [{ ...x, shape: [3], data: three }], '"x" has 1 dimensions'],
  ["dimensions for a scalar", "scalars", [{ ...x, name: "a", shape: [1], data: [1] }], '"a" has 1 dimensions'],
  ["another fixed dimension", "echo-float32", [{ ...x, shape: [1, 2], data: [1, 2] }], '"x" must have length 3'],
  ["a negative dimension", "echo-float32", [{ ...x, shape: [-1, 3], data: three }], '"x" has -1 as dimension 0'],
  ["a broken dimension", "echo-float32", [{ ...x, shape: [0.5, 3], data: three }], '"x" has 0.5 as dimension 0'],
  ["a dimension that is not a number", "echo-float32", [{ ...x, shape: ["1", 3], data: three }], '"x": shape.0'],
  ["a huge dimension", "echo-float32", [{ ...x, shape: [1e15, 3], data: three }], '"x" has 3000000000000000 elements'],
  ["a huge empty dimension", "echo-float32", [{ ...x, shape: [2 ** 31, 3], data: [] }], '"x" has 6442450944 elements'],
  [
    "dimensions that must agree but do not",
    "two-in-two-out",
    [ids, { ...weights, shape: [2, 2], data: [1, 2, 3, 4] }],
    '"weights" must have length 1 in dimension 0',
  ],
  ["too few elements", "echo-float32", [{ ...x, data: [1, 2] }], '"x" of shape [1,3]: data has 2 elements'],
  ["uneven nesting", "echo-float32", [{ ...x, data: [[1, 2], 3] }], '"x" of shape [1,3]: data needs an array of 1'],
  ["data that is not an array", "echo-float32", [{ ...x, data: "abc" }], '"x" of shape [1,3]: data must be an array'],
  ["neither data nor binary data", "echo-float32", [x], '"x" has neither data nor'],
  ["an element of another type", "echo-float32", [{ ...x, data: [1, "2", 3] }], '"x" has an element 1'],
  [
    "an element out of range",
    "echo-float16",
    [{ ...x, datatype: "FP16", data: [1, 2, 65520] }],
    '"x" has an element 2',
  ],
  ["a broken integer", "echo-int64", [{ ...int64, data: [1.5, 2, 3] }], '"x" has an element 0'],
  [
    "an integer beyond 64 bits",
    "echo-int64",
    [{ ...int64, data: [1, 2, "9223372036854775808"] }],
    '"x" has an element 2',
  ],
  ["NUL in a string", "echo-string", [{ ...text, data: ["a", "b\0c", "d"] }], '"x" has an element 1'],
  ["shared memory", "echo-float32", [{ ...x, parameters: { shared_memory_region: "r" } }], '"x": parameters'],
];

const wrongBytes: [what: string, model: string, inputs: InferTensor[], says: string][] = [
  ["too few bytes", "echo-float32", [{ ...x, bytes: float32(1, 2) }], '"x" of shape [1,3] needs 12 bytes, has 8'],
  [
    "a bool that is neither 0 nor 1",
    "echo-bool",
    [{ ...x, datatype: "BOOL", bytes: Buffer.from([0, 1, 2]) }],
    '"x" of shape',
  ],
  [
    "a wrong length prefix",
    "echo-string",
    [{ ...text, bytes: bytesOf("a", "b", "c").fill(9, 10, 11) }],
    "claims to be longer",
  ],
  ["too few strings", "echo-string", [{ ...text, bytes: bytesOf("a", "b") }], "the bytes end in element 2"],
  ["bytes after the strings", "echo-string", [{ ...text, bytes: bytesOf("a", "b", "c", "d") }], "5 bytes after its 3"],
  [
    "invalid UTF-8",
    "echo-string",
    [{ ...text, bytes: bytesOf("a", Buffer.from([0xc3]), "c") }],
    "element 1 that is not",
  ],
];

describe("faults in requests of the tensor API", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models, env: { MAX_TENSOR_BYTES: "100000", MAX_BODY_BYTES: "50000" } });
  });
  afterAll(async () => {
    // No request reached a worker, since none was added as a job.
    const added = await Promise.all(
      models.map((model) => stack.redis.get(`${modelKeys(stack.prefix, model).queue}id`)),
    );
    const blobs = await stack.redis.keys(`${stack.prefix}*/blob:*`);
    await stack.close();
    expect(added).toEqual(models.map(() => null));
    expect(blobs).toEqual([]);
  });

  const send = async (model: string, body: Uint8Array | string, headers: Record<string, string> = {}) => {
    const answer = await infer(stack, model, { inputs: [] }, { body: Buffer.from(body), headers });
    return { ...answer, ...assertProblem(answer, answer.status, answer.body.code) };
  };

  test.each(wrongInputs)("%s is a 400 that names the fault", async (_what, model, inputs, says) => {
    const { error, status } = await send(model, JSON.stringify({ inputs }));
    expect([status, error]).toEqual([400, expect.stringContaining(says)]);
  });

  test.each(wrongBytes)("%s is a 400 that names the tensor", async (_what, model, inputs, says) => {
    const { body, headers } = inferBody({ inputs });
    const { error, status } = await send(model, body, headers);
    expect([status, error]).toEqual([400, expect.stringContaining(says)]);
    expect(error).toContain('tensor "x"');
  });

  test("binary data with contradictory sizes is a 400 that names the tensor", async () => {
    const json = (size: number) => JSON.stringify({ inputs: [{ ...x, parameters: { binary_data_size: size } }] });
    const sent = async (size: number, bytes: number, header?: number) => {
      const text = json(size);
      const length = String(header ?? text.length);
      return send("echo-float32", text + "x".repeat(bytes), { "inference-header-content-length": length });
    };
    expect((await sent(12, 8)).error).toContain('tensor "x" has a binary_data_size of 12, but 8 bytes');
    expect((await sent(12, 16)).error).toContain('4 bytes of binary data are left over: after that of tensor "x"');
    expect((await sent(2 ** 52, 12)).error).toContain('tensor "x" has a binary_data_size');
    expect((await send("echo-float32", json(12))).error).toContain('tensor "x" is binary data, but');
    for (const header of [json(12).length + 13, 2 ** 40, -1]) {
      expect((await sent(12, 12, header)).status).toBe(400);
    }
    const both = JSON.stringify({ inputs: [{ ...x, data: three, parameters: { binary_data_size: 12 } }] });
    const headers = { "inference-header-content-length": String(both.length) };
    expect((await send("echo-float32", `${both}${"x".repeat(12)}`, headers)).error).toContain('tensor "x" has both');
  });

  test("unknown, duplicate or unsupported outputs are a 400", async () => {
    const asking = (outputs: unknown[]) =>
      send("echo-float32", JSON.stringify({ inputs: [{ ...x, data: three }], outputs }));
    expect((await asking([{ name: "z" }])).error).toContain('output tensor "z" is unknown');
    expect((await asking([{ name: "y" }, { name: "y" }])).error).toContain('output tensor "y" is asked for twice');
    expect((await asking([{ name: "y", parameters: { classification: 3 } }])).error).toContain('tensor "y"');
  });

  test("several faults are listed at once, each with a pointer", async () => {
    const { body, status } = await send(
      "two-in-two-out",
      JSON.stringify({
        inputs: [
          { ...ids, datatype: "INT32" },
          { ...weights, data: [1, null] },
        ],
        outputs: [{ name: "no" }],
      }),
    );
    expect(status).toBe(400);
    expect(body.errors.map(({ pointer }: { pointer: string }) => pointer).sort()).toEqual([
      "/inputs/0",
      "/inputs/1/data",
      "/outputs/0",
    ]);
  });

  test("a body that is not a request is a 400, one that is too large a 413", async () => {
    const inputs = [{ ...x, data: three }];
    for (const body of ["", "{", "[]", "null", "{}", '{"inputs":{}}', '{"inputs":[1]}']) {
      expect((await send("echo-float32", body)).status, body).toBe(400);
    }
    for (const parameters of [
      { priority: -1 },
      { priority: 1001 },
      { timeout: 1.5 },
      { sequence_id: 3 },
      { cache: "no" },
    ]) {
      expect((await send("echo-float32", JSON.stringify({ inputs, parameters }))).status).toBe(400);
    }
    const nested = "[".repeat(9000) + "]".repeat(9000);
    const deep = `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":${nested}}]}`;
    expect((await send("echo-float32", deep)).status).toBe(400);
    expect((await send("echo-float32", " ".repeat(50_001))).status).toBe(413);
    const header = { "inference-header-content-length": "2" };
    const large = await send("echo-float32", " ".repeat(100_001), header);
    expect([large.status, large.error]).toEqual([413, expect.stringContaining("MAX_TENSOR_BYTES")]);
  });
});
