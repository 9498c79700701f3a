import { cp, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { deflateSync } from "node:zlib";
import { refusedModelsKey } from "@millrace/shared/redis/keys.js";
import { listVersions, wholeFolder } from "@millrace/workers/versions/model-repository.js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { root } from "../support/run/tools.js";
import { readiness } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";

const onnx = join(root, "test/fixtures/models/scalars/1/model.onnx");
const pickleOf = (module: string): Buffer =>
  Buffer.concat([Buffer.from([0x80, 4, 0x95]), Buffer.from(`\x8c\x18${module}.ensemble._forest\x94`, "latin1")]);

/** Puts a file into a folder; `onnx` stands for a good ONNX file. */
async function put(dir: string, path: string, content: Buffer | string | "onnx"): Promise<void> {
  await mkdir(dirname(join(dir, path)), { recursive: true });
  if (content === "onnx") await cp(onnx, join(dir, path));
  else await writeFile(join(dir, path), content);
}

describe("a folder that is not laid out as a model", () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "millrace-layout-"));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  const cases: [what: string, path: string, content: Buffer | string, reason: RegExp][] = [
    ["an ONNX file without a version", "m/model.onnx", "onnx", /^model\.onnx lies outside.*m\/1\/model\.onnx/],
    ["an ONNX file by another name", "m/fraud.onnx", "onnx", /^fraud\.onnx lies outside.*m\/1\/model\.onnx/],
    ["a version v1", "m/v1/model.onnx", "onnx", /^v1 is no version.*Rename it to m\/1$/],
    ["a version 01", "m/01/model.onnx", "onnx", /^01 is no version.*m\/1$/],
    ["a version by a time", "m/20260101120000/model.onnx", "onnx", /is no version/],
    ["a version by a word", "m/latest/model.onnx", "onnx", /^latest is no version.*m\/1$/],
    ["a pickle of scikit-learn", "m/model.pkl", pickleOf("sklearn"), /pickle of scikit-learn.*skl2onnx\.to_onnx/],
    ["a pickle of LightGBM", "m/model.pkl", pickleOf("lightgbm.sklearn"), /LightGBM.*onnxmltools\.convert_lightgbm/],
    ["a pickle of XGBoost", "m/1.0/model.pickle", pickleOf("xgboost.sklearn"), /^1\.0\/model.*convert_xgboost/],
    ["a pickle of PyTorch", "m/model.pkl", pickleOf("torch._utils"), /PyTorch.*torch\.onnx\.export/],
    ["a compressed joblib file", "m/model.joblib", deflateSync("x"), /pickle.*skl2onnx.*lightgbm.*xgboost.*CatBoost/i],
    ["a TorchScript file", "m/model.pt", "PK\x03\x04m/constants.pkl", /TorchScript.*torch\.jit\.load/],
    ["a file of torch.save", "m/v1/model.pth", "PK\x03\x04archive/data.pkl", /torch\.save.*torch\.onnx\.export/],
    ["a Keras file", "m/model.h5", "\x89HDF\r\n", /Keras.*model\.export/],
    ["a SavedModel", "m/saved_model.pb", "", /TensorFlow.*tf2onnx/],
    ["a CatBoost file", "m/model.cbm", "CBM1", /CatBoost.*save_model\("model\.onnx", format="onnx"\)/],
    ["a CatBoost JSON file", "m/model.json", '{"features_info":{}}', /CatBoost/],
    ["an XGBoost JSON file", "m/booster.json", '{"learner":{"attributes":{}}}', /XGBoost.*convert_xgboost/],
    ["a LightGBM text file", "m/model.txt", "tree\nversion=v4\n", /LightGBM.*convert_lightgbm/],
    ["a name in capitals", "My Model/1/model.onnx", "onnx", /not a model's name: 1 to 64.*such as to my-model$/],
    ["a name that is too long", `${"x".repeat(100)}/1/model.onnx`, "onnx", /1 to 64.*such as to x{64}$/],
    ["a file in the models folder", "fraud.onnx", "onnx", /^it is a file.*fraud\/1\/model\.onnx/],
    ["a pickle in the models folder", "fraud.pkl", pickleOf("sklearn"), /skl2onnx/],
    ["the folder of one model", "1/model.onnx", "onnx", /MODELS_DIR the folder of one model/],
  ];
  test.each(cases)("is refused with the remedy: %s", async (_what, path, content, reason) => {
    await put(dir, path, content);
    const { bad, folders } = await listVersions(dir, ["*"]);
    expect([folders, bad]).toEqual([[], [{ model: expect.any(String), version: null, reason: expect.any(String) }]]);
    expect(bad[0]?.reason).toMatch(reason);
    expect(JSON.stringify(bad)).not.toContain(dir);
  });

  test.each([
    ["notes", "m/README.md", "# notes"],
    ["scripts", "training/train.py", "import sklearn"],
    ["a manifest alone", "m/model.json", '{"kind":"tensor"}'],
    ["a hidden folder", ".cache/1/model.onnx", "onnx"],
    ["a version that is being written", "m/1.tmp/model.onnx", "onnx"],
    ["settings", "settings.json", '{"learner": 1}'],
  ])("is not seen in a folder with %s", async (_what, path, content) => {
    await put(dir, path, content);
    expect(await listVersions(dir, ["*"])).toEqual({ folders: [], bad: [] });
  });

  test("is told beside a good version, which is served all the same", async () => {
    for (const version of ["1", "v2", "3.tmp"]) await put(dir, `m/${version}/model.onnx`, "onnx");
    await put(dir, "m/1/original.pkl", pickleOf("sklearn"));
    const { bad, folders } = await listVersions(dir, ["*"]);
    expect(folders.map(({ version }) => version)).toEqual(["1"]);
    expect(bad).toEqual([{ model: "m", version: null, reason: expect.stringMatching(/^v2 is no version.*m\/2$/) }]);
  });

  test("has a name that no terminal acts on, and two that are cut alike stay apart", async () => {
    const names = ["a\u001b[31m\nb", `${"é".repeat(90)}1`, `${"é".repeat(90)}2`, "a\u202eb"];
    for (const name of names) await put(dir, `${name}/1/model.onnx`, "onnx");
    const { bad } = await listVersions(dir, ["*"]);
    expect(new Set(bad.map(({ model }) => model)).size).toBe(names.length);
    for (const { model, reason } of bad) {
      expect(model).toMatch(/^[^\p{C}]{1,74}$/u);
      expect(reason).toMatch(/^[^\p{C}]+$/u);
    }
  });

  test("costs little however many there are, and hides no held model", async () => {
    for (let i = 0; i < 12_000; i++) await mkdir(join(dir, `bad-${i}`));
    for (let i = 0; i < 400; i++) await put(dir, `bad-${i}/model.onnx`, "x");
    await put(dir, "zz-held/1/model.onnx", "onnx");
    const { bad, folders } = await listVersions(dir, ["*"], new Set(["zz-held"]));
    expect(folders.map(({ model }) => model)).toEqual(["zz-held"]);
    expect(bad.length).toBeLessThanOrEqual(201);
    expect(bad.at(-1)).toMatchObject({
      model: wholeFolder,
      reason: expect.stringContaining("remove what is no model"),
    });
  });
});

describe("a refusal", () => {
  let stack: TestStack;
  afterEach(() => stack.close());

  const refused = async (as: "alice" | "admin" = "alice") => (await stack.get("/v1/models", { as })).body.refused;
  const untilRefused = (models: string[]) =>
    eventually(async () => expect((await refused()).map(({ model }: { model: string }) => model)).toEqual(models));

  test("of a model never served is told everywhere, and goes when its folder is mended", async () => {
    stack = await TestStack.start({ models: ["scalars"] });
    expect((await stack.get("/monitoring/health")).body).toMatchObject({ status: "ok", refused: [] });
    await put(stack.modelsDir, "fraud/v1/model.onnx", "onnx");
    await put(stack.modelsDir, "Churn/1/model.onnx", "onnx");
    await put(stack.modelsDir, "broken/1/model.onnx", pickleOf("sklearn"));
    await untilRefused(["Churn", "broken", "fraud"]);
    const list = await refused();
    expect(list).toEqual([
      {
        model: "Churn",
        version: null,
        worker: expect.any(String),
        reason: expect.stringContaining("such as to churn"),
      },
      { model: "broken", version: "1", worker: expect.any(String), reason: expect.stringContaining("skl2onnx") },
      { model: "fraud", version: null, worker: expect.any(String), reason: expect.stringContaining("fraud/1") },
    ]);
    expect((await stack.get("/monitoring/health")).body).toMatchObject({ status: "degraded", refused: list });
    const [worker] = stack.workers as [TestStack["workers"][number]];
    const shown = (await readiness(worker)).refused.map(({ reason }: { reason: string }) => reason);
    expect(shown.sort()).toEqual(list.map(({ reason }: { reason: string }) => reason).sort());
    for (const { model, reason } of list) {
      expect(stack.logged("model cannot be served")).toContainEqual(expect.objectContaining({ model, reason }));
    }
    expect(JSON.stringify([list, stack.logged("model cannot be served")])).not.toContain(stack.modelsDir);
    // Whoever asks for it is told, too.
    const asked = [
      await stack.get("/v1/models/fraud"),
      await stack.post("/v1/models/fraud/predictions", { input: {} }),
    ];
    for (const { body, status } of asked) {
      expect([status, body.detail]).toEqual([404, `The model "fraud" is refused: ${list[2].reason}`]);
    }

    await rename(join(stack.modelsDir, "fraud/v1"), join(stack.modelsDir, "fraud/1"));
    await rename(join(stack.modelsDir, "Churn"), join(stack.modelsDir, "churn"));
    await rm(join(stack.modelsDir, "broken"), { recursive: true });
    await untilRefused([]);
    await eventually(async () => {
      const names = (await stack.get("/v1/models")).body.data.map(({ name }: { name: string }) => name);
      expect(names).toEqual(["churn", "fraud", "scalars"]);
    });
    await eventually(async () => expect((await stack.get("/monitoring/health")).body.status).toBe("ok"));
  });

  test("is told for each worker with its own folder, and goes with the worker that told it", async () => {
    stack = await TestStack.start({ models: ["scalars"] });
    const other = await mkdtemp(join(tmpdir(), "millrace-other-models-"));
    try {
      await cp(join(stack.modelsDir, "scalars"), join(other, "scalars"), { recursive: true });
      await put(other, "here/model.pkl", pickleOf("sklearn"));
      await put(other, "both/model.onnx", "onnx");
      await put(stack.modelsDir, "both/v1/model.onnx", "onnx");
      const second = await stack.startWorker({ MODELS_DIR: other });
      const third = await stack.startWorker({ MODELS_DIR: other });
      await untilRefused(["both", "both", "both", "here", "here"]);
      await second.stop();
      await untilRefused(["both", "both", "here"]);
      third.child.kill("SIGKILL");
      await untilRefused(["both"]);
      expect((await refused())[0].reason).toMatch(/^v1 is no version/);
    } finally {
      await rm(other, { recursive: true });
    }
  });

  test("of hundreds of folders is bounded in Redis, in answers and in the log", async () => {
    stack = await TestStack.start({ models: ["scalars"] });
    for (let i = 0; i < 600; i++) await put(stack.modelsDir, `bad-${i}/model.onnx`, "onnx");
    await eventually(async () => expect((await refused()).length).toBeGreaterThan(200));
    expect((await refused()).length).toBeLessThan(210);
    expect(await stack.redis.zcard(refusedModelsKey(stack.prefix))).toBeLessThan(210);
    expect((await refused()).map(({ model }: { model: string }) => model)).toContain(wholeFolder);
    expect(stack.logged("model cannot be served").length).toBeLessThanOrEqual(50);
    expect((await stack.predict("scalars", { a: 1, b: 2 })).status).toBeLessThan(500);
  });

  test("is read only by keys that may read the model", async () => {
    stack = await TestStack.start({ models: ["scalars"] });
    await put(stack.modelsDir, "fraud/model.onnx", "onnx");
    await untilRefused(["fraud"]);
    const made = await stack.post("/admin/keys", { owner: "bound", scopes: ["read@scalars"] }, { as: "admin" });
    const authorization = `Bearer ${made.body.key}`;
    // The API hears of a new key in a moment.
    await eventually(async () => {
      const models = await fetch(`${stack.url}/v1/models`, { headers: { authorization } });
      expect(await models.json()).toMatchObject({ data: [{ name: "scalars" }], refused: [] });
    });
  });
});
