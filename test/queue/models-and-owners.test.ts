import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { modelTag, newId } from "@millrace/shared/redis/ids.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { assertNotified } from "../support/stack/assert-notified.js";
import { manifestOf } from "../support/stack/flows.js";
import { keys, type Owner, TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/models/${name}/1`, import.meta.url));

/** The digest by the rule in shared/models/model-digest.ts, computed with the programs named there. */
async function digestOf(folder: string): Promise<string> {
  const lines = "find . -type f | LC_ALL=C sort | xargs sha256sum";
  const { stdout } = await promisify(execFile)("sh", ["-c", lines], { cwd: folder });
  return `sha256:${sha256(stdout)}`;
}

describe("models and owners", () => {
  let stack: TestStack;
  let otherDir: string;
  const worker = () => stack.workers[0] as (typeof stack.workers)[0];

  beforeAll(async () => {
    const scopes = { alice: "predict", bob: "predict", reader: "read", admin: "predict+admin" };
    const lines = Object.entries(keys).map(([name, key]) => `${name}:${sha256(key)}:${scopes[name as Owner]}`);
    stack = await TestStack.start({
      models: [tree, "dynamic-inner"],
      workers: 0,
      // A second key of the owner `reader`, which can submit.
      env: { API_KEYS: [...lines, `reader:${sha256("reader-2")}`].join(",") },
    });
    // Version 1 adds one, version 2 returns its input.
    await cp(fixture("echo-float32"), join(stack.modelsDir, "dynamic-inner/2"), { recursive: true });
    await mkdir(join(stack.modelsDir, "dynamic-inner/2/notes"));
    await writeFile(join(stack.modelsDir, "dynamic-inner/2/notes/about.txt"), "second\n");
    await writeFile(join(stack.modelsDir, "dynamic-inner/2/Vocab.txt"), "a\nb\n");
    otherDir = await mkdtemp(join(tmpdir(), "millrace-other-"));
    await cp(fixture("echo-float64"), join(otherDir, "dynamic-inner/2"), { recursive: true });
    await cp(fixture("scalars"), join(otherDir, "scalars/1"), { recursive: true });
  });
  afterAll(async () => {
    await stack.close();
    await rm(otherDir, { recursive: true, force: true });
  });

  test("an API started before the first model knows it as soon as a worker has announced it", async () => {
    expect((await stack.get("/v1/models")).body).toEqual({ data: [], refused: [] });
    assertProblem(await stack.get(`/v1/models/${tree}`), 404, "model_not_found");
    await stack.startWorker();
    const input = manifestOf(tree).samples[0].input;
    expect((await stack.predict(tree, input)).body.status).toBe("succeeded");
  });

  test("a model's resource has versions, input, labels, workers, queue depth and a valid sample input", async () => {
    const manifest = manifestOf(tree);
    // A result is readable slightly before its job leaves the queue.
    const body = await eventually(async () => {
      const { body } = await stack.get(`/v1/models/${tree}`);
      expect(body).toMatchObject({
        name: tree,
        object: "model",
        kind: "tabular",
        title: manifest.title,
        default_version: "1",
        versions: [{ version: "1", workers_alive: 1 }],
        queue: { waiting: 0, scheduled: 0, running: 0 },
        output: { labels: manifest.output.labels },
      });
      return body;
    });
    expect(body.input.features.map(({ name }: { name: string }) => name)).toEqual(manifest.input.features);
    const predicted = await stack.predict(tree, body.sample_input);
    expect(predicted.body.output.label).toBe(manifest.samples[0].expected.label);

    await eventually(async () => {
      const list = await stack.get("/v1/models");
      expect(list.body.data.map(({ name }: { name: string }) => name)).toEqual(["dynamic-inner", tree]);
    });
    const tensor = await stack.get("/v1/models/dynamic-inner");
    expect(tensor.body.input.tensors).toEqual([{ name: "x", dtype: "float32", shape: ["N", 3] }]);
  });

  test("the highest of two versions is the default, and each runs if it is named", async () => {
    const input = { x: [[1, 2, 3]] };
    const first = await stack.predict("dynamic-inner", input, { version: "1" });
    const second = await stack.predict("dynamic-inner", input, { version: "2" });
    const unnamed = await stack.predict("dynamic-inner", input);
    expect(first.body).toMatchObject({ version: "1", output: { y: [[2, 3, 4]] } });
    expect(second.body).toMatchObject({ version: "2", output: { y: [[1, 2, 3]] } });
    expect(unnamed.body).toMatchObject({ version: "2", output: { y: [[1, 2, 3]] } });
    const both = await Promise.all(
      Array.from({ length: 40 }, (_, i) =>
        stack.predict("dynamic-inner", { x: [[i, 0, 0]] }, { version: String(1 + (i % 2)) }),
      ),
    );
    expect(both.map(({ body }) => body.output.y[0][0])).toEqual(both.map((_, i) => i + 1 - (i % 2)));
  });

  test("the digest of a version is the SHA-256 of sha256sum's output for its files, in predictions too", async () => {
    const { body } = await stack.get("/v1/models/dynamic-inner");
    const digests = await Promise.all(["1", "2"].map((v) => digestOf(join(stack.modelsDir, "dynamic-inner", v))));
    expect(body.versions.map(({ digest }: { digest: string }) => digest)).toEqual(digests);
    const answer = await stack.predict("dynamic-inner", { x: [[1]] }, { version: "1" });
    expect(answer.body.model_digest).toBe(digests[0]);
  });

  test("another owner's id gets the same answer as an unknown id", async () => {
    const { id } = await stack.submit(tree, manifestOf(tree).samples[0].input);
    const pending = await stack.submit(tree, manifestOf(tree).samples[0].input, { delay_ms: 600_000 });
    await stack.final(id);
    for (const as of ["bob", "reader"] as const) {
      const never = await stack.get(`/v1/predictions/${newId(modelTag(tree))}`, { as });
      for (const foreign of [id, pending.id]) {
        const answer = await stack.get(`/v1/predictions/${foreign}`, { as });
        const { request_id: _, ...body } = assertProblem(answer, 404, "prediction_not_found");
        const { request_id: __, ...expected } = never.body;
        expect(body).toEqual(expected);
        expect([...answer.headers.keys()]).toEqual([...never.headers.keys()]);
      }
      const waited = await assertNotified(stack, { model: tree, input: manifestOf(tree).samples[0].input }, () =>
        stack.get(`/v1/predictions/${pending.id}?wait=20`, { as }),
      );
      assertProblem(waited, 404, "prediction_not_found");
    }
  });

  test("a read-only key reads predictions that its owner submitted with another key, and no others", async () => {
    const headers = { authorization: "Bearer reader-2" };
    const { id } = await stack.submit("dynamic-inner", { x: [[5]] }, { version: "1" }, { headers });
    expect((await stack.final(id, { as: "reader" })).output).toEqual({ y: [[6]] });
    assertProblem(await stack.get(`/v1/predictions/${id}`, { as: "alice" }), 404, "prediction_not_found");
    assertProblem(await stack.post(`/v1/models/${tree}/predictions`, {}, { as: "reader" }), 403, "forbidden");
  });

  test("a worker with other files for a served version refuses them with the reason, and serves the rest", async () => {
    await mkdir(join(otherDir, "linked/1"), { recursive: true });
    await symlink(join(fixture("scalars"), "model.onnx"), join(otherDir, "linked/1/model.onnx"));
    const second = await stack.startWorker({ MODELS_DIR: otherDir });
    const state = (await (await fetch(`http://127.0.0.1:${second.port}/ready`)).json()) as {
      models: { model: string }[];
      refused: { model: string; version: string; reason: string }[];
    };
    expect(state.models.map(({ model }) => model)).toEqual(["scalars"]);
    expect(state.refused.map(({ model, version }) => `${model}/${version}`).sort()).toEqual([
      "dynamic-inner/2",
      "linked/1",
    ]);
    const { reason } = state.refused.find(({ model }) => model === "dynamic-inner") as { reason: string };
    expect(reason).toContain(await digestOf(join(stack.modelsDir, "dynamic-inner/2")));
    expect(reason).toContain(await digestOf(join(otherDir, "dynamic-inner/2")));
    expect(stack.logged("model cannot be served").map((line) => line.reason)).toContain(reason);
    // The refused version computes in float64 and would return 0.1 unrounded.
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => stack.predict("dynamic-inner", { x: [[0.1, 0, 0]] })),
    );
    for (const { body } of answers) expect(body.output).toEqual({ y: [[Math.fround(0.1), 0, 0]] });
    expect(await second.stop()).toBe(0);
  });

  test("without a worker a model stays known, even to a newly started API, and its work waits", async () => {
    expect(await worker().stop()).toBe(0);
    const { url } = await stack.startApi();
    for (const api of [stack.url, url]) {
      const known = await eventually(async () => {
        const answer = await stack.get("/v1/models/dynamic-inner", { url: api });
        expect(answer.body.workers_alive).toBe(0);
        return answer.body;
      });
      expect(known).toMatchObject({ default_version: "2", accepting: true });
    }
    const ids = [];
    for (const api of [stack.url, url]) {
      ids.push((await stack.submit("dynamic-inner", { x: [[1, 2, 3]] }, {}, { url: api })).id);
    }
    expect((await stack.get("/v1/models/dynamic-inner")).body.queue.waiting).toBe(2);
    await stack.startWorker();
    for (const id of ids) expect((await stack.final(id, { url })).output).toEqual({ y: [[1, 2, 3]] });
  });

  test("workers that serve different versions of a model all count as alive", async () => {
    const dirs = ["1", "2"].map((version) => join(otherDir, `only-${version}`));
    for (const [i, dir] of dirs.entries()) {
      const folder = `dynamic-inner/${i + 1}`;
      await cp(join(stack.modelsDir, folder), join(dir, folder), { recursive: true });
    }
    await Promise.all(stack.workers.filter(({ child }) => child.exitCode === null).map((running) => running.stop()));
    for (const dir of dirs) await stack.startWorker({ MODELS_DIR: dir });
    await eventually(async () => {
      const { body } = await stack.get("/v1/models/dynamic-inner");
      const alive = body.versions.map(({ workers_alive }: { workers_alive: number }) => workers_alive);
      expect([body.workers_alive, alive]).toEqual([2, [1, 1]]);
    }, 6000);
  });
});
