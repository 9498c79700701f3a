import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { keys, TestStack } from "../support/stack/stack.js";

const run = promisify(execFile);
const program = fileURLToPath(new URL("../fixtures/triton_client.py", import.meta.url));
const dtypes = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"];
const echoes = [...dtypes, "float16", "float32", "float64", "string"].map((dtype) => `echo-${dtype}`);

const folder = await mkdtemp(join(tmpdir(), "millrace-triton-"));
const hasClient = await installClient();

/** Installs Triton's client into a temporary folder; false without Python or without a package index. */
async function installClient(): Promise<boolean> {
  // Leaves this machine's Python packages unchanged, and compiles nothing.
  const options = ["--target", folder, "--no-compile", "--only-binary", ":all:", "--retries", "1", "--timeout", "10"];
  // Listed, with `--no-deps`: resolving takes as long as installing, and `[http]` has a client for asyncio too.
  const packages = [
    ...["tritonclient==2.73.0", "numpy", "ml_dtypes", "python-rapidjson", "urllib3", "geventhttpclient", "gevent"],
    ...["greenlet", "zope.event", "zope.interface", "brotli", "certifi"],
  ];
  try {
    await run("python3", ["-m", "pip", "install", "--quiet", "--no-deps", ...options, ...packages], {
      timeout: 120_000,
    });
    return true;
  } catch {
    return false;
  }
}

describe.skipIf(!hasClient)("Triton's own client", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [...echoes, "two-in-two-out"] });
  });
  afterAll(() => stack.close());

  test("gets every data type, format and error in the form that it expects", async () => {
    const url = stack.url.replace("http://", "");
    const { stdout } = await run("python3", [program, url, keys.admin], {
      env: { PATH: process.env.PATH, PYTHONPATH: folder },
      timeout: 60_000,
    });
    const { checks, failures } = JSON.parse(stdout) as { checks: number; failures: string[] };
    expect(failures).toEqual([]);
    expect(checks).toBeGreaterThan(100);
  });
});

afterAll(() => rm(folder, { recursive: true, force: true }));
