import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFile, cp, mkdir, mkdtemp, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { writeMlp } from "../fixtures/write-mlp.js";
import { eventually } from "../support/eventually.js";
import { readiness } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";

const run = promisify(execFile);
const program = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/models/${name}`, import.meta.url));
const cli = async (...args: string[]) => (await run(process.execPath, [program, "models", ...args])).stdout.trim();

/** Reasons of refused models by `<model>/<version>`. */
async function refusalsOf(stack: TestStack): Promise<Record<string, string>> {
  const { refused } = await readiness(stack.workers[0] as TestStack["workers"][number]);
  return Object.fromEntries(
    refused.map(({ model, reason, version }: Record<string, string>) => [`${model}/${version}`, reason]),
  );
}

describe("a worker with MODEL_PUBLIC_KEYS", () => {
  let stack: TestStack;
  let dir: string;
  let publicKey: string;
  const path = (...parts: string[]) => join(stack.modelsDir, ...parts);
  const served = async () =>
    (await readiness(stack.workers[0] as TestStack["workers"][number])).models.map(
      ({ model, version }: Record<string, string>) => `${model}/${version}`,
    );

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "millrace-keys-"));
    const [line = ""] = (await cli("key", join(dir, "ours.pem"))).split("\n");
    publicKey = line.replace("MODEL_PUBLIC_KEYS=", "");
    await cli("key", join(dir, "theirs.pem"));
    const copies = ["tampered", "added", "missing", "unsigned", "theirs", "manifest", "renumbered"];
    stack = await TestStack.start({ models: ["echo-float32"], workers: 0 });
    for (const name of copies) await cp(fixture("echo-float32"), path(name), { recursive: true });
    await writeFile(path("missing/1/labels.txt"), "a\n");
    await writeFile(path("manifest/model.json"), JSON.stringify({ kind: "tensor", title: "as signed" }));
    for (const name of ["echo-float32", ...copies]) {
      if (name !== "unsigned" && name !== "theirs") await cli("sign", path(name), "--key", join(dir, "ours.pem"));
    }
    await cli("sign", path("theirs/1"), "--key", join(dir, "theirs.pem"));
    await appendFile(path("tampered/1/model.onnx"), "\0");
    await writeFile(path("added/1/more.bin"), "more");
    await rm(path("missing/1/labels.txt"));
    await writeFile(path("manifest/model.json"), JSON.stringify({ kind: "tensor", title: "another" }));
    await rename(path("renumbered/1"), path("renumbered/2"));
    await stack.startWorker({ MODEL_PUBLIC_KEYS: `${publicKey},${Buffer.from(randomBytes(32)).toString("base64")}` });
  });
  afterAll(async () => {
    await stack.close();
    await rm(dir, { recursive: true, force: true });
  });

  test("loads versions signed by one of them, and none that is changed, extended, incomplete or unsigned", async () => {
    expect(await served()).toEqual(["echo-float32/1"]);
    expect((await stack.predict("echo-float32", { x: [[1, 2, 3]] })).body.output).toEqual({ y: [[1, 2, 3]] });
    expect(await refusalsOf(stack)).toEqual({
      "tampered/1": expect.stringMatching(/not what was signed: model\.onnx/),
      "added/1": expect.stringMatching(/not what was signed: more\.bin/),
      "missing/1": expect.stringMatching(/not what was signed: labels\.txt/),
      "manifest/1": expect.stringMatching(/not what was signed: \.\.\/model\.json/),
      "unsigned/1": expect.stringMatching(/not signed/),
      "theirs/1": expect.stringMatching(/by none of MODEL_PUBLIC_KEYS/),
      "renumbered/2": expect.stringMatching(/another model or version/),
    });
  });

  test("loads a version that is signed while it runs, and the signed list passes sha256sum -c", async () => {
    await cli("sign", path("unsigned"), "--key", join(dir, "ours.pem"));
    await eventually(async () => expect(await served()).toContain("unsigned/1"));
    const { stdout } = await run("sha256sum", ["-c", "manifest.sha256"], { cwd: path("echo-float32/1") });
    expect(stdout.trim()).toBe("model.onnx: OK");
  });

  test("does not start with an invalid key, and the CLI never overwrites a key file", async () => {
    const worker = stack.startWorker({ MODEL_PUBLIC_KEYS: "abc" });
    await expect(worker).rejects.toThrow(/MODEL_PUBLIC_KEYS must be Ed25519 public keys/);
    expect(await stack.workers.at(-1)?.exited).toBe(78);
    stack.workers.pop();
    await expect(cli("key", join(dir, "ours.pem"))).rejects.toThrow(/EEXIST/);
    await expect(cli("sign", dir, "--key", join(dir, "ours.pem"))).rejects.toThrow(/neither a model's folder/);
    await expect(cli("sign", path("echo-float32"))).rejects.toThrow(/usage/);
  });
});

describe("the files of a version's folder", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: ["echo-float32"], workers: 0 });
    const path = (...parts: string[]) => join(stack.modelsDir, ...parts);
    const small = { inputs: 2, layers: 1, width: 4, outputs: 1 };
    const model = join(fixture("echo-float32"), "1/model.onnx");
    await mkdir(path("linked-file/1"), { recursive: true });
    await symlink(model, path("linked-file/1/model.onnx"));
    await mkdir(path("linked-version"), { recursive: true });
    await symlink(join(fixture("echo-float32"), "1"), path("linked-version/1"));
    await symlink(fixture("echo-float32"), path("linked-model"));
    await cp(fixture("echo-float32"), path("linked-folder"), { recursive: true });
    await symlink("/etc", path("linked-folder/1/etc"));
    await cp(fixture("echo-float32"), path("linked-manifest"), { recursive: true });
    await symlink("/etc/hostname", path("linked-manifest/model.json"));
    await writeFile(path("weights.bin"), Buffer.alloc(32));
    for (const [name, external] of [
      ["climbs", "../../weights.bin"],
      ["climbs-inside", "data/../../../weights.bin"],
      ["absolute", path("weights.bin")],
      ["not-there", "weights.bin"],
    ] as const) {
      writeMlp(path(name, "1/model.onnx"), { ...small, external });
    }
    writeMlp(path("own-data/1/model.onnx"), { ...small, external: "data/weights.bin" });
    await mkdir(path("own-data/1/data"));
    await writeFile(path("own-data/1/data/weights.bin"), Buffer.alloc(4 * 2 * 4));
    await mkdir(path("too-large/1"), { recursive: true });
    await writeFile(path("too-large/1/model.onnx"), "");
    await truncate(path("too-large/1/model.onnx"), 17 * 1024 ** 3);
    await cp(fixture("echo-float32"), path("large-manifest"), { recursive: true });
    await writeFile(path("large-manifest/model.json"), "");
    await truncate(path("large-manifest/model.json"), 17 * 1024 ** 2);
    await mkdir(path("too-deep/1/a/b/c/d/e/f/g/h/i"), { recursive: true });
    await stack.startWorker();
  });
  afterAll(() => stack.close());

  test("links, paths and data outside the folder and large files are refused, and the rest is served", async () => {
    const { models } = await readiness(stack.workers[0] as TestStack["workers"][number]);
    expect(models.map(({ model }: { model: string }) => model)).toEqual(["echo-float32", "own-data"]);
    const refusals = await refusalsOf(stack);
    expect(refusals).toEqual({
      "linked-file/1": expect.stringMatching(/model\.onnx is a link/),
      "linked-model/null": expect.stringMatching(/is a link/),
      "linked-version/1": expect.stringMatching(/is a link/),
      "linked-folder/1": expect.stringMatching(/etc is a link/),
      "linked-manifest/1": expect.stringMatching(/model\.json is a link/),
      "climbs/1": expect.stringMatching(/external data "\.\.\/\.\.\/weights\.bin" leave the version's folder/),
      "climbs-inside/1": expect.stringMatching(/leave the version's folder/),
      "absolute/1": expect.stringMatching(/leave the version's folder/),
      "not-there/1": expect.stringMatching(/not among the version's files/),
      "too-large/1": expect.stringMatching(/more than \d+ bytes/),
      "large-manifest/1": expect.stringMatching(/model\.json has more than \d+ bytes/),
      "too-deep/1": expect.stringMatching(/folders deep/),
    });
    expect((await stack.predict("own-data", { x: [[1, 2]] })).body.status).toBe("succeeded");
  });
});
