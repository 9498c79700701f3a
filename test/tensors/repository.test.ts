import { cp, mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { infer } from "../support/http/infer.js";
import { assertProblem } from "../support/http/problem.js";
import { TestStack } from "../support/stack/stack.js";

const admin = { as: "admin" } as const;
const tree = "intrusion-decision-tree";

describe("the model repository of the tensor API", () => {
  let stack: TestStack;
  const index = async () => (await stack.post("/v2/repository/index", {})).body;
  const order = (model: string, what: string, body: object = {}) =>
    stack.post(`/v2/repository/models/${model}/${what}`, body, admin);
  const ones = (version?: string) =>
    infer(
      stack,
      "dynamic-inner",
      { inputs: [{ name: "x", datatype: "FP32", shape: [1, 1], data: [1] }] },
      version === undefined ? {} : { version },
    );

  beforeAll(async () => {
    stack = await TestStack.start({
      models: ["dynamic-inner", "scalars", "two-in-two-out", "echo-string", "batch-mean", "broken", tree],
      workers: 2,
    });
    const folder = join(stack.modelsDir, "dynamic-inner");
    await cp(join(folder, "1"), join(folder, "2.tmp"), { recursive: true });
    await rename(join(folder, "2.tmp"), join(folder, "2"));
    expect((await order("dynamic-inner", "load")).status).toBe(200);
    await eventually(async () =>
      expect((await stack.get("/v2/models/dynamic-inner")).body.versions).toEqual(["1", "2"]),
    );
    // Laid out as no model is, so that it is refused without a version.
    await mkdir(join(stack.modelsDir, "pickled"));
    await writeFile(join(stack.modelsDir, "pickled", "model.pkl"), "x");
  });
  afterAll(() => stack.close());

  test("a model with several versions is unloaded as a whole, and loaded again", async () => {
    expect((await ones()).status).toBe(200);
    const versions = ["1", "2"];
    for (let times = 0; times < 2; times++) {
      const unloaded = await order("dynamic-inner", "unload", { parameters: { unload_dependents: false } });
      expect([unloaded.status, unloaded.body]).toEqual([200, {}]);
      await eventually(async () => {
        const entries = (await index()).filter(({ name }: { name: string }) => name === "dynamic-inner");
        const expected = { name: "dynamic-inner", state: "UNAVAILABLE", reason: "unloaded" };
        expect(entries).toEqual(versions.map((version: string) => ({ ...expected, version })));
        expect((await stack.get("/v2/models/dynamic-inner/ready")).status).toBe(404);
        expect((await ones()).status).toBe(404);
      });
      // Once more says the same, and changes nothing.
      expect((await order("dynamic-inner", "unload")).status).toBe(200);
      const loaded = await order("dynamic-inner", "load");
      expect([loaded.status, loaded.body]).toEqual([200, {}]);
      await eventually(async () => {
        expect((await stack.get("/v2/models/dynamic-inner")).body.versions).toEqual(versions);
        for (const version of versions) expect((await ones(version)).status).toBe(200);
      });
    }
  });

  test("unknown parameters of load and unload are refused, and change nothing", async () => {
    const refused: [string, object][] = [
      ["load", { parameters: { config: "{}" } }],
      ["load", { parameters: { "file:1/model.onnx": "AAAA" } }],
      ["load", { parameters: { unload_dependents: true } }],
      ["load", { parameters: [] }],
      ["load", { version: "1" }],
      ["unload", { parameters: { dependents: true } }],
      ["unload", { parameters: { unload_dependents: "yes" } }],
      ["unload", { force: true }],
      ["unload", []],
    ];
    for (const [what, body] of refused) {
      const problem = assertProblem(await order("scalars", what, body), 400, "invalid_request");
      expect(problem.error).toBe(problem.detail);
    }
    expect((await stack.get("/v2/models/scalars/ready")).status).toBe(200);
  });

  test("a load that no worker can carry out says why", async () => {
    const problem = assertProblem(await order("broken", "load"), 400, "invalid_request");
    expect(problem.detail).toMatch(/^No worker can load the version: .{10}/);
    assertProblem(await order("nobody", "load"), 404, "model_not_found");
  });

  test("the index lists refused models as unavailable, each with its reason", async () => {
    await eventually(async () => {
      const entries: { name: string; version: string; state: string; reason: string }[] = await index();
      const byName = (name: string) => entries.find((entry) => entry.name === name);
      const { refused } = (await stack.get("/v1/models")).body;
      for (const [name, version] of [
        ["broken", "1"],
        ["pickled", ""],
      ] as const) {
        const { reason } = refused.find(({ model }: { model: string }) => model === name);
        expect(byName(name)).toEqual({ name, version, state: "UNAVAILABLE", reason });
        expect(reason).not.toBe("");
      }
      expect(byName("scalars")).toEqual({ name: "scalars", version: "1", state: "READY", reason: "" });
      expect(entries.map(({ name }) => name)).toEqual(entries.map(({ name }) => name).sort());
    });
    const ready = (await stack.post("/v2/repository/index", { ready: true })).body;
    expect(ready.every(({ state }: { state: string }) => state === "READY")).toBe(true);
    assertProblem(await stack.post("/v2/repository/index", { ready: "yes" }), 400, "invalid_request");
  });

  test("a configuration tells tensors as Triton's clients read them, and rows where requests share runs", async () => {
    const config = async (path: string) => {
      const { body, status } = await stack.get(`/v2/models/${path}/config`, { as: "reader" });
      expect(status).toBe(200);
      return body;
    };
    const two = await config("two-in-two-out");
    expect(two).toMatchObject({
      name: "two-in-two-out",
      platform: "onnxruntime_onnx",
      backend: "onnxruntime",
      max_batch_size: 64,
      input: [
        { name: "ids", data_type: "TYPE_INT64", dims: [2] },
        { name: "weights", data_type: "TYPE_FP32", dims: [2] },
      ],
      output: [
        { name: "total", data_type: "TYPE_FP32", dims: [1], reshape: { shape: [] } },
        { name: "ids_out", data_type: "TYPE_INT64", dims: [2] },
      ],
    });
    expect(await config("two-in-two-out/versions/1")).toEqual(two);
    expect((await config("echo-string")).input).toMatchObject([{ data_type: "TYPE_STRING" }]);
    expect(await config(tree)).toMatchObject({ input: [{ data_type: "TYPE_FP32", dims: [78] }] });
    // Its rows see each other, so nothing is joined, and the dimensions are whole.
    const mean = await config("batch-mean");
    const { inputs } = (await stack.get("/v2/models/batch-mean")).body;
    expect(mean.max_batch_size).toBe(0);
    expect(mean.input.map(({ dims }: { dims: number[] }) => dims)).toEqual(
      inputs.map(({ shape }: { shape: number[] }) => shape),
    );
    assertProblem(await stack.get("/v2/models/nope/config"), 404, "model_not_found");
    assertProblem(await stack.get("/v2/models/scalars/versions/9/config"), 404, "version_not_found");
  });
});
