import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { bytesOf, fetchInference, float32, type InferAnswer, infer, inferBody } from "../support/http/infer.js";
import { assertProblem } from "../support/http/problem.js";
import { Receiver, secretOf, verified } from "../support/http/receiver.js";
import { flow } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

/** A tensor [1, 3] of each data type: in the protocol's JSON, in the JSON of `/v1`, and as bytes. */
const echoes: Record<string, { datatype: string; data: string; v1: string; bytes: Buffer }> = {
  bool: { datatype: "BOOL", data: "[true,false,true]", v1: "[[true,false,true]]", bytes: Buffer.from([1, 0, 1]) },
  int8: { datatype: "INT8", data: "[-128,127,0]", v1: "[[-128,127,0]]", bytes: bytes(new Int8Array([-128, 127, 0])) },
  int16: {
    ...{ datatype: "INT16", data: "[-32768,32767,-1]", v1: "[[-32768,32767,-1]]" },
    bytes: bytes(new Int16Array([-32768, 32767, -1])),
  },
  int32: {
    ...{ datatype: "INT32", data: "[-2147483648,2147483647,7]", v1: "[[-2147483648,2147483647,7]]" },
    bytes: bytes(new Int32Array([-2147483648, 2147483647, 7])),
  },
  int64: {
    datatype: "INT64",
    data: "[-9223372036854775808,9223372036854775807,9007199254740993]",
    v1: '[["-9223372036854775808","9223372036854775807","9007199254740993"]]',
    bytes: bytes(new BigInt64Array([-(2n ** 63n), 2n ** 63n - 1n, 2n ** 53n + 1n])),
  },
  uint8: { datatype: "UINT8", data: "[0,255,128]", v1: "[[0,255,128]]", bytes: Buffer.from([0, 255, 128]) },
  uint16: {
    ...{ datatype: "UINT16", data: "[0,65535,256]", v1: "[[0,65535,256]]" },
    bytes: bytes(new Uint16Array([0, 65535, 256])),
  },
  uint32: {
    ...{ datatype: "UINT32", data: "[0,4294967295,2147483648]", v1: "[[0,4294967295,2147483648]]" },
    bytes: bytes(new Uint32Array([0, 4294967295, 2147483648])),
  },
  uint64: {
    datatype: "UINT64",
    data: "[18446744073709551615,9007199254740993,0]",
    v1: '[["18446744073709551615","9007199254740993",0]]',
    bytes: bytes(new BigUint64Array([2n ** 64n - 1n, 2n ** 53n + 1n, 0n])),
  },
  float16: {
    datatype: "FP16",
    data: "[65504,-0.0,5.960464477539063e-8]",
    v1: "[[65504,-0.0,5.960464477539063e-8]]",
    bytes: bytes(new Uint16Array([0x7bff, 0x8000, 0x0001])),
  },
  float32: {
    datatype: "FP32",
    data: "[3.4028234663852886e+38,-0.0,0.10000000149011612]",
    v1: "[[3.4028234663852886e+38,-0.0,0.10000000149011612]]",
    bytes: float32(3.4028234663852886e38, -0, 0.1),
  },
  float64: {
    datatype: "FP64",
    data: "[1.7976931348623157e+308,5e-324,0.1]",
    v1: "[[1.7976931348623157e+308,5e-324,0.1]]",
    bytes: bytes(new Float64Array([1.7976931348623157e308, 5e-324, 0.1])),
  },
  string: {
    datatype: "BYTES",
    data: '["größe","","😀 \\"9223372036854775807\\""]',
    v1: '[["größe","","😀 \\"9223372036854775807\\""]]',
    bytes: bytesOf("größe", "", '😀 "9223372036854775807"'),
  },
};

function bytes(array: { buffer: ArrayBufferLike }): Buffer {
  return Buffer.from(array.buffer as ArrayBuffer);
}

const idOf = ({ headers }: InferAnswer) => headers.get("location")?.split("/").at(-1) as string;

const binaryOut = { parameters: { binary_data_output: true } };
const secret = secretOf(7);
const models = ["scalars", "two-in-two-out", "dynamic-inner", "throws-on-row", "intrusion-random-forest"];

describe("the tensor API", () => {
  let stack: TestStack;
  let receiver: Receiver;

  beforeAll(async () => {
    receiver = await Receiver.start();
    stack = await TestStack.start({
      models: [...Object.keys(echoes).map((dtype) => `echo-${dtype}`), ...models],
      // Long enough for all concurrent requests to be joined.
      manifests: { "dynamic-inner": { kind: "tensor", batching: { max_delay_ms: 200 } } },
      env: { WEBHOOK_SECRET: secret, WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
    });
  });
  afterAll(async () => {
    await receiver.close();
    await stack.close();
  });

  const row = (dtype: string) => {
    const { datatype, ...rest } = echoes[dtype] as (typeof echoes)[string];
    return { input: { name: "x", datatype, shape: [1, 3] }, ...rest };
  };

  test.each(Object.keys(echoes))("%s gives identical bits through JSON, binary and /v1", async (dtype) => {
    const { bytes, data, input, v1 } = row(dtype);
    const model = `echo-${dtype}`;
    const fromBytes = await infer(stack, model, { inputs: [{ ...input, bytes }], ...binaryOut });
    expect(fromBytes.body.outputs, fromBytes.text).toEqual([
      { name: "y", datatype: input.datatype, shape: [1, 3], parameters: { binary_data_size: bytes.length } },
    ]);
    expect(fromBytes.binary.y).toEqual(bytes);

    const text = `{"inputs":[${JSON.stringify(input).slice(0, -1)},"data":${data}}]}`;
    const fromJson = await infer(stack, model, { inputs: [] }, { body: Buffer.from(text) });
    expect(fromJson.status, fromJson.text).toBe(200);
    expect(fromJson.text).toContain(`"shape":[1,3],"data":${data}}`);
    expect((await fetchInference(stack, idOf(fromJson), "application/octet-stream")).binary.y).toEqual(bytes);

    const submitted = await stack.call("POST", `/v1/models/${model}/predictions`, {
      text: `{"input":{"x":${v1}}}`,
      headers: { "content-type": "application/json", prefer: "wait=30" },
    });
    expect(submitted.body.status).toBe("succeeded");
    expect((await fetchInference(stack, submitted.body.id, "application/octet-stream")).binary.y).toEqual(bytes);
    expect((await fetchInference(stack, submitted.body.id)).text).toContain(`"data":${data}`);
    const read = await stack.get(`/v1/predictions/${idOf(fromBytes)}`);
    expect(read.body.output).toEqual({ y: JSON.parse(v1) });
  });

  test("NaN and infinities keep every bit as bytes, and have names in JSON", async () => {
    const odd = bytes(new Uint32Array([0x7fc12345, 0x7f800000, 0xff800000]));
    const input = { name: "x", datatype: "FP32", shape: [1, 3] };
    const first = await infer(stack, "echo-float32", { inputs: [{ ...input, bytes: odd }], ...binaryOut });
    // The second request is answered from the cache.
    const second = await infer(stack, "echo-float32", { inputs: [{ ...input, bytes: odd }], ...binaryOut });
    expect([first.binary.y, second.binary.y]).toEqual([odd, odd]);
    expect((await stack.get(`/v1/predictions/${idOf(second)}`)).body).toMatchObject({
      cached: true,
      output: { y: [["NaN", "Infinity", "-Infinity"]] },
    });
    for (const data of ['["NaN","Infinity",-9007199254740993]', "[NaN,Infinity,-9007199254740993]"]) {
      const body = Buffer.from(`{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":${data}}]}`);
      const answer = await infer(stack, "echo-float32", { inputs: [] }, { body });
      expect(answer.body.outputs?.[0].data, answer.text).toEqual(["NaN", "Infinity", -9007199254740992]);
    }
  });

  test("scalars, empty dimensions and nested data are valid inputs", async () => {
    const scalar = (name: string, data: unknown) => ({ name, datatype: "FP32", shape: [], data });
    const sums = await infer(stack, "scalars", { inputs: [scalar("b", [3.5]), scalar("a", 2)] });
    expect(sums.body.outputs).toEqual([
      { name: "sum", datatype: "FP32", shape: [], data: [5.5] },
      { name: "product", datatype: "FP32", shape: [], data: [7] },
    ]);
    const inputs = [{ name: "x", datatype: "FP32", shape: [0, 3], data: [] }];
    const none = await infer(stack, "echo-float32", { inputs });
    expect(none.body.outputs).toEqual([{ name: "y", datatype: "FP32", shape: [0, 3], data: [] }]);
    const emptyBytes = await infer(stack, "echo-float32", {
      inputs: [{ name: "x", datatype: "FP32", shape: [0, 3], bytes: Buffer.alloc(0) }],
      ...binaryOut,
    });
    expect(emptyBytes.body.outputs[0].parameters).toEqual({ binary_data_size: 0 });
    const nested = [
      {
        name: "x",
        datatype: "FP32",
        shape: [2, 2],
        data: [
          [1, 2],
          [3, 4],
        ],
      },
    ];
    expect((await infer(stack, "dynamic-inner", { inputs: nested })).body.outputs[0].data).toEqual([2, 3, 4, 5]);
    const flat = [{ name: "x", datatype: "FP32", shape: [2, 2], data: [1, 2, 3, 4] }];
    expect((await infer(stack, "dynamic-inner", { inputs: flat })).body.outputs[0].data).toEqual([2, 3, 4, 5]);
  });

  test("only the requested outputs are returned, in that order, each in the requested form", async () => {
    const inputs = [
      { name: "weights", datatype: "FP32", shape: [2, 2], bytes: float32(0.5, 1, 2, 0.25) },
      { name: "ids", datatype: "INT64", shape: [2, 2], data: [1, 2, 3, 4] },
    ];
    const all = await infer(stack, "two-in-two-out", { inputs, id: "mine" });
    expect(all.body).toEqual({
      id: "mine",
      model_name: "two-in-two-out",
      model_version: "1",
      outputs: [
        { name: "total", datatype: "FP32", shape: [2], data: [2.5, 7] },
        { name: "ids_out", datatype: "INT64", shape: [2, 2], data: [1, 2, 3, 4] },
      ],
    });
    const outputs = [{ name: "ids_out" }, { name: "total", parameters: { binary_data: true } }];
    const mixed = await infer(stack, "two-in-two-out", { inputs, outputs }, { version: "1" });
    expect(mixed.headers.get("content-type")).toBe("application/octet-stream");
    expect(mixed.body.outputs).toEqual([
      { name: "ids_out", datatype: "INT64", shape: [2, 2], data: [1, 2, 3, 4] },
      { name: "total", datatype: "FP32", shape: [2], parameters: { binary_data_size: 8 } },
    ]);
    expect(mixed.binary.total).toEqual(float32(2.5, 7));
    const one = await infer(stack, "two-in-two-out", {
      ...{ inputs, outputs: [{ name: "total", parameters: { binary_data: false } }] },
      ...binaryOut,
    });
    expect(one.body.outputs).toEqual([{ name: "total", datatype: "FP32", shape: [2], data: [2.5, 7] }]);
  });

  test("a body without JSON is the model's only input, with a shape inferred from its size", async () => {
    const raw = (model: string, body: Uint8Array) =>
      infer(stack, model, { inputs: [] }, { body, headers: { "inference-header-content-length": "0" } });
    const rows = await raw("echo-float32", float32(1, 2, 3, 4, 5, 6));
    expect(rows.body.outputs[0].shape).toEqual([2, 3]);
    expect(rows.binary.y).toEqual(float32(1, 2, 3, 4, 5, 6));
    const wide = await raw("dynamic-inner", float32(1, 2, 3, 4));
    expect(wide.body.outputs[0].shape).toEqual([1, 4]);
    expect(wide.binary.y).toEqual(float32(2, 3, 4, 5));
    expect((await raw("echo-float32", float32(1, 2))).body.error).toContain('tensor "x"');
    expect((await raw("scalars", float32(1))).body.error).toContain('"a", "b"');
  });

  test("request bodies may be compressed, and answers have an encoding that the client accepts", async () => {
    const count = 3000;
    const made = inferBody({
      inputs: [{ name: "x", datatype: "FP32", shape: [count, 3], bytes: Buffer.alloc(12 * count) }],
      ...binaryOut,
    });
    for (const encoding of ["gzip", "deflate", "identity"]) {
      const headers = { ...made.headers, "content-encoding": "gzip", "accept-encoding": encoding };
      const answer = await infer(stack, "echo-float32", { inputs: [] }, { body: gzipSync(made.body), headers });
      expect(answer.headers.get("content-encoding") ?? "identity").toBe(encoding);
      expect(answer.binary.y).toEqual(Buffer.alloc(12 * count));
    }
    const refused = await infer(
      stack,
      "echo-float32",
      { inputs: [] },
      { body: made.body, headers: { ...made.headers, "content-encoding": "zip" } },
    );
    expect(refused.status).toBe(400);
  });

  test("respond-async returns the prediction at once, and its result later in the requested form", async () => {
    const inputs = [{ name: "x", datatype: "FP32", shape: [1, 3], data: [1, 2, 3.25] }];
    const outputs = [{ name: "y", parameters: { binary_data: true } }];
    const later = { headers: { prefer: "respond-async" } };
    const accepted = await infer(stack, "echo-float32", { inputs, outputs, id: "later" }, later);
    expect([accepted.status, accepted.body.object]).toEqual([202, "prediction"]);
    expect(accepted.headers.get("preference-applied")).toBe("respond-async");
    expect(accepted.headers.get("location")).toBe(`/v1/predictions/${accepted.body.id}`);
    const fetched = await fetchInference(stack, accepted.body.id);
    expect(fetched.body).toMatchObject({ id: "later", model_name: "echo-float32", model_version: "1" });
    expect(fetched.binary.y).toEqual(float32(1, 2, 3.25));
    expect((await stack.final(accepted.body.id)).output).toEqual({ y: [[1, 2, 3.25]] });

    const waited = await infer(
      stack,
      "echo-float32",
      { inputs, id: "wait" },
      { headers: { prefer: "respond-async, wait=20" } },
    );
    expect([waited.status, waited.body.id, waited.body.outputs[0].data]).toEqual([200, "wait", [1, 2, 3.25]]);
    // The same request again is answered from the cache, in its own form.
    const again = await infer(stack, "echo-float32", { inputs, outputs, id: "later" }, later);
    expect(again.status).toBe(200);
    expect(again.binary.y).toEqual(float32(1, 2, 3.25));
  });

  test("a webhook delivers the result", async () => {
    const inputs = [{ name: "x", datatype: "FP32", shape: [1, 3], data: [7, 8, 9] }];
    const parameters = { webhook_url: receiver.url("/done"), cache: false };
    const accepted = await infer(
      stack,
      "echo-float32",
      { inputs, parameters },
      { headers: { prefer: "respond-async" } },
    );
    const [request] = await receiver.received("/done");
    const { data } = verified(secret, request as NonNullable<typeof request>);
    expect(data).toMatchObject({ id: accepted.body.id, status: "succeeded", output: { y: [[7, 8, 9]] } });
  });

  test("a tabular model accepts its tensor, and each API reads predictions of the other", async () => {
    const values = flow(5);
    const features = { name: "features", datatype: "FP32" };
    const two = [...values, ...flow(6)];
    const tensors = await infer(stack, "intrusion-random-forest", {
      inputs: [{ ...features, shape: [2, 78], data: two }],
      outputs: [{ name: "probabilities" }],
    });
    const [output] = tensors.body.outputs;
    const classes = Object.keys((await stack.predict("intrusion-random-forest", values)).body.output.probabilities);
    expect(output.shape).toEqual([2, classes.length]);
    const first = output.data.slice(0, classes.length);
    const { body } = await stack.predict("intrusion-random-forest", values);
    const read = await fetchInference(stack, body.id);
    expect(read.body.outputs).toEqual([
      { name: "probabilities", datatype: "FP32", shape: [1, classes.length], data: first },
    ]);
    expect(Object.values(body.output.probabilities)).toEqual(first);
    const viewed = (await stack.get(`/v1/predictions/${idOf(tensors)}`)).body.output;
    expect(viewed.probabilities.flat()).toEqual(output.data);
    const narrow = await infer(stack, "intrusion-random-forest", {
      inputs: [{ ...features, shape: [1, 77], data: values.slice(1) }],
    });
    expect([narrow.status, narrow.body.error]).toEqual([400, expect.stringContaining('tensor "features"')]);
  });

  test("requests that differ only in their rows are joined, each with its own result", async () => {
    const width = (i: number) => 2 + (i % 2);
    const answers = await Promise.all(
      Array.from({ length: 24 }, (_, i) => {
        const shape = [1 + (i % 3), width(i)];
        const data = Array.from({ length: (shape[0] as number) * width(i) }, (_, k) => 100 * i + k);
        return infer(stack, "dynamic-inner", { inputs: [{ name: "x", datatype: "FP32", shape, data }] }).then(
          (answer) => ({ answer, data }),
        );
      }),
    );
    for (const { answer, data } of answers) {
      expect(answer.body.outputs?.[0].data, answer.text).toEqual(data.map((value) => value + 1));
    }
    const runs = await Promise.all(answers.map(({ answer }) => stack.get(`/v1/predictions/${idOf(answer)}`)));
    expect(Math.max(...runs.map(({ body }) => body.timings.batch_rows))).toBeGreaterThan(3);
  });

  test("server and models have metadata", async () => {
    expect((await stack.get("/v2/health/live", { as: null })).body).toEqual({ live: true });
    expect((await stack.get("/v2/health/ready", { as: null })).body).toEqual({ ready: true });
    const server = (await stack.get("/v2", { as: "reader" })).body;
    expect(server).toMatchObject({ name: "millrace", version: expect.stringMatching(/^\d+\.\d+/) });
    expect(server.extensions).toContain("binary_tensor_data");
    const described = {
      name: "two-in-two-out",
      versions: ["1"],
      platform: "onnxruntime_onnx",
      inputs: [
        { name: "ids", datatype: "INT64", shape: [-1, 2] },
        { name: "weights", datatype: "FP32", shape: [-1, 2] },
      ],
      outputs: [
        { name: "total", datatype: "FP32", shape: [-1] },
        { name: "ids_out", datatype: "INT64", shape: [-1, 2] },
      ],
    };
    for (const path of ["two-in-two-out", "two-in-two-out/versions/1"]) {
      expect((await stack.get(`/v2/models/${path}`, { as: "reader" })).body).toEqual(described);
      expect((await stack.get(`/v2/models/${path}/ready`)).body).toEqual({ name: "two-in-two-out", ready: true });
    }
    const index = (await stack.post("/v2/repository/index", { ready: true })).body;
    expect(index).toContainEqual({ name: "scalars", version: "1", state: "READY", reason: "" });
    expect(index).toHaveLength(Object.keys(echoes).length + models.length);
  });

  test("unknown models and versions are 404, and keys and scopes are required, with the protocol's error", async () => {
    for (const path of ["/v2/models/nope", "/v2/models/nope/ready", "/v2/models/nope/stats"]) {
      assertProblem(await stack.get(path), 404, "model_not_found");
    }
    assertProblem(await stack.get("/v2/models/scalars/versions/9"), 404, "version_not_found");
    assertProblem(await stack.post("/v2/models/scalars/versions/9/infer", { inputs: [] }), 404, "version_not_found");
    assertProblem(await stack.post("/v2/models/nope/infer", { inputs: [] }), 404, "model_not_found");
    assertProblem(await stack.get("/v2", { as: null }), 401, "unauthenticated");
    assertProblem(await stack.post("/v2/models/scalars/infer", {}, { as: "reader" }), 403, "forbidden");
    assertProblem(await stack.get("/v2/models/scalars/infer"), 405, "method_not_allowed");
    assertProblem(await stack.get("/v2/nothing"), 404, "not_found");
    const load = "/v2/repository/models/scalars/load";
    assertProblem(await stack.post(load, {}), 403, "forbidden");
    expect((await stack.post(load, {}, { as: "admin" })).status).toBe(200);
    const unload = "/v2/repository/models/scalars/unload";
    assertProblem(await stack.post(unload, {}), 403, "forbidden");
    assertProblem(await stack.post("/v2/repository/models/nope/unload", {}, { as: "admin" }), 404, "model_not_found");
  });

  test("statistics count rows, runs and failures", async () => {
    const input = (value: number, rows: number) => ({
      inputs: [{ name: "x", datatype: "INT64", shape: [rows, 1], data: new Array(rows).fill(value) }],
    });
    await infer(stack, "throws-on-row", input(3, 4));
    await infer(stack, "throws-on-row", input(3, 4));
    const failed = await infer(stack, "throws-on-row", input(99, 1));
    expect([failed.status, failed.body.code]).toEqual([500, "inference_failed"]);
    expect(failed.body.error).toContain("cannot run this input");
    await eventually(async () => {
      const { body } = await stack.get("/v2/models/throws-on-row/versions/1/stats");
      const [stats] = body.model_stats;
      expect(stats).toMatchObject({ name: "throws-on-row", version: "1", inference_count: 4, execution_count: 1 });
      const { cache_hit: hit, compute_infer: computed, fail, success } = stats.inference_stats;
      expect([success.count, fail.count, computed.count, hit.count]).toEqual([2, 1, 1, 1]);
      expect(computed.ns).toBeGreaterThan(0);
      expect(success.ns).toBeGreaterThan(computed.ns);
      expect(stats.batch_stats).toMatchObject([{ batch_size: 4, compute_infer: { count: 1 } }]);
      expect(Date.now() - stats.last_inference).toBeLessThan(60_000);
    });
    expect((await stack.get("/v2/models/stats")).body.model_stats).toHaveLength(
      Object.keys(echoes).length + models.length,
    );
  });

  test("a canceled prediction has no result to fetch", async () => {
    const inputs = [{ name: "x", datatype: "FP32", shape: [1, 3], data: [1, 1, 1] }];
    const { id } = await stack.submit("echo-float32", { x: [[1, 2, 3]] }, { delay_ms: 60_000 });
    const pending = await stack.get(`/v1/predictions/${id}`, {
      headers: { accept: "application/vnd.open-inference+json" },
    });
    expect([pending.status, pending.body.status]).toEqual([202, "scheduled"]);
    await stack.post(`/v1/predictions/${id}/cancel`, {});
    assertProblem(
      await stack.get(`/v1/predictions/${id}`, { headers: { accept: "application/octet-stream" } }),
      409,
      "state_conflict",
    );
    const keyed = { headers: { "idempotency-key": "one" } };
    const first = await infer(stack, "echo-float32", { inputs, id: "a" }, keyed);
    const second = await infer(stack, "echo-float32", { inputs, id: "a" }, keyed);
    expect([second.headers.get("idempotency-replayed"), idOf(second)]).toEqual(["true", idOf(first)]);
    expect((await infer(stack, "echo-float32", { inputs, id: "b" }, keyed)).body.code).toBe("idempotency_mismatch");
  });
});

describe("the tensor API with slow runs", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: ["endless-on-one"],
      manifests: { "endless-on-one": { kind: "tensor", timeout_ms: 600_000 } },
      env: { SYNC_TIMEOUT_SECONDS: "1" },
    });
  });
  afterAll(() => stack.close());

  const send = (value: number, parameters = {}, headers = {}) => {
    const inputs = [{ name: "x", datatype: "INT64", shape: [1, 1], data: [value] }];
    return infer(stack, "endless-on-one", { inputs, parameters }, { headers });
  };

  test("a run not done in time is a 504 with its Location; a prediction not begun in time expires", async () => {
    const endless = await send(1, { cache: false });
    expect([endless.status, endless.body.code]).toEqual([504, "not_in_time"]);
    const behind = await send(7);
    expect([behind.status, behind.body.code]).toEqual([504, "not_in_time"]);
    const brief = await send(8, { timeout: 300_000, priority: 3 });
    expect([brief.status, brief.body.code]).toEqual([504, "not_in_time"]);
    expect((await stack.final(idOf(brief))).status).toBe("expired");
    expect((await stack.post(`/v1/predictions/${idOf(endless)}/cancel`, {})).body.status).toBe("canceled");
    expect((await fetchInference(stack, idOf(behind))).body.outputs[0].data).toEqual([7]);
  });

  test("without a live worker only requests with respond-async are accepted", async () => {
    await Promise.all(stack.workers.splice(0).map((worker) => worker.stop()));
    const refused = await eventually(async () => {
      const answer = await send(3);
      expect(answer.status, answer.text).toBe(503);
      return answer;
    });
    expect([refused.body.code, refused.headers.get("retry-after")]).toEqual(["no_worker", "2"]);
    expect((await stack.get("/v2/models/endless-on-one/ready")).status).toBe(503);
    const accepted = await send(2, {}, { prefer: "respond-async" });
    expect([accepted.status, accepted.body.status]).toEqual([202, "queued"]);
    await stack.startWorker();
    expect((await fetchInference(stack, accepted.body.id)).body.outputs[0].data).toEqual([2]);
  });
});
