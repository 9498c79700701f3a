import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { cpSync, readFileSync, statSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { root } from "../support/run/tools.js";
import { Installation } from "../support/stack/npm-start.js";
import { stillRunning } from "../support/stack/processes.js";

const run = promisify(execFile);

/** Name, size and time of change of everything in a folder. */
async function contentsOf(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  return [".", ...names].sort().map((name) => {
    const { mtimeMs, size } = statSync(join(folder, name));
    return `${name} ${size} ${mtimeMs}`;
  });
}

/** The output of a printed line, as a shell runs it. */
async function runLine(line: string, env: Record<string, string> = {}) {
  const { stdout } = await run("sh", ["-c", line], { env: { PATH: process.env.PATH, ...env } });
  return JSON.parse(stdout);
}

describe("npm start", () => {
  let installation: Installation;
  let models: string;

  beforeEach(async () => {
    installation = await Installation.make();
    models = await mkdtemp(join(tmpdir(), "millrace-own-models-"));
    cpSync(join(root, "test/fixtures/models/scalars"), join(models, "scalars"), { recursive: true });
  });
  afterEach(async () => {
    await installation.close();
    await rm(models, { recursive: true });
  });

  test("is refused on a data folder in use, touching nothing, and names process and URL of the first", async () => {
    const first = await installation.running({ MODELS_DIR: models });
    // Stopped, so that nothing of the first itself writes meanwhile.
    const [, launcher, ...others] = first.processes as [number, number, ...number[]];
    for (const pid of others) process.kill(pid, "SIGSTOP");
    const before = await contentsOf(installation.dataDir);
    await writeFile(join(installation.dir, "empty.js"), "");
    const begun = performance.now();
    await run("npm", ["exec", "--offline", "-c", "exec node empty.js"], { cwd: installation.dir });
    const emptyMs = performance.now() - begun;
    const again = performance.now();
    const second = installation.start({ MODELS_DIR: models });
    expect(await second.exited).toBe(1);
    // What an empty program takes under npm at the same time is the machine's.
    expect(performance.now() - again - emptyMs).toBeLessThan(1000);
    expect(await contentsOf(installation.dataDir)).toEqual(before);
    for (const pid of others) process.kill(pid, "SIGCONT");
    expect(second.output()).toContain(`process ${launcher}, at ${first.url}.`);
    expect(second.output()).not.toContain("Building");
    // Once its processes have caught up with the time that they stood still.
    await eventually(async () => expect((await runLine(first.curl)).status).toBe("succeeded"));
  });

  test("keeps its key, which only its user can read, and the work that it accepted", async () => {
    const first = await installation.running({ MODELS_DIR: models });
    const { id } = await runLine(first.curl);
    first.child.kill("SIGTERM");
    expect(await first.exited).toBe(0);
    expect(first.output()).toContain("Stopped.");
    for (const name of ["api-key", "api-keys", "webhook-secret"]) {
      expect(statSync(join(installation.dataDir, name)).mode & 0o777, name).toBe(0o600);
    }
    const second = await installation.running({ MODELS_DIR: models });
    expect(second.key).toBe(first.key);
    const headers = { authorization: `Bearer ${first.key}` };
    const kept = await fetch(`${second.url}/v1/predictions/${id}`, { headers });
    expect(await kept.json()).toMatchObject({ id, status: "succeeded" });
  });

  test.each(["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"] as const)(
    "leaves no process behind when npm is ended by %s",
    async (signal) => {
      const { child, processes } = await installation.running({ MODELS_DIR: models });
      // npm, this program, worker, slot, API, and Redis with its guard.
      expect(processes.length).toBeGreaterThanOrEqual(7);
      child.kill(signal);
      await untilGone(processes);
    },
  );

  test.each([
    ["its build", "Building", "SIGKILL"],
    ["its start", "Starting", "SIGTERM"],
    ["its start", "Starting", "SIGKILL"],
  ] as const)(
    "leaves no process behind when npm is ended during %s, once it says %s, by %s",
    async (_when, says, signal) => {
      const started = installation.start({ MODELS_DIR: models });
      const processes = await eventually(async () => {
        expect(started.output()).toContain(says);
        const found = await installation.processesOf(started);
        // npm, this program, and a child of it.
        expect(found.length).toBeGreaterThan(2);
        return found;
      });
      started.child.kill(signal);
      await untilGone(processes);
    },
  );

  test("leaves no process behind when it is killed itself, and loses nothing that it accepted", async () => {
    const first = await installation.running({ MODELS_DIR: models });
    const headers = { authorization: `Bearer ${first.key}`, "content-type": "application/json" };
    const delayed = await fetch(`${first.url}/v1/models/scalars/predictions`, {
      ...{ method: "POST", headers },
      body: bodyOf(first.curl, { delay_ms: 2000 }),
    });
    const { id } = (await delayed.json()) as { id: string };
    expect(delayed.status).toBe(202);
    process.kill(first.processes[1] as number, "SIGKILL");
    await untilGone(first.processes);
    // Redis has ended of its own accord, not by SIGKILL.
    const log = readFileSync(join(installation.dataDir, "redis/redis.log"), "utf8");
    expect(log).toContain("Redis is now ready to exit");
    const second = await installation.running({ MODELS_DIR: models });
    await eventually(async () => {
      const answer = await fetch(`${second.url}/v1/predictions/${id}?wait=10`, { headers });
      expect(await answer.json()).toMatchObject({ id, status: "succeeded" });
    });
  });

  test("ends everything and says why when Redis, the API or the worker dies", async () => {
    const commands = ["redis-server", "api/dist/main.js", "workers/dist/main.js"];
    for (const [i, says] of ["Redis ended", "the API ended (SIGKILL)", "the worker ended (SIGKILL)"].entries()) {
      const started = await installation.running({ MODELS_DIR: models });
      const lines = execFileSync("ps", ["-o", "pid=,args=", "-p", started.processes.join(",")])
        .toString()
        .split("\n");
      const line = lines.find((one) => one.includes(commands[i] as string) && !one.includes("sh -c")) as string;
      process.kill(Number.parseInt(line, 10), "SIGKILL");
      expect(await started.exited).toBe(1);
      expect(started.output()).toContain(`Stopping, because ${says}`);
      await eventually(async () => expect(await stillRunning(started.processes)).toEqual([]));
    }
  });

  describe("with a port in use", () => {
    let other: ReturnType<typeof createServer>;
    afterEach(() => other.close());

    test("says so in one line where PORT is set, and starts nothing", async () => {
      other = createServer().listen(0, "127.0.0.1");
      await once(other, "listening");
      const { port } = other.address() as AddressInfo;
      const started = installation.start({ MODELS_DIR: models, PORT: `${port}` });
      expect(await started.exited).toBe(78);
      expect(started.output()).toContain(`PORT ${port} is taken by another process on 127.0.0.1: stop that process`);
      expect(started.output()).not.toMatch(/\n\s+at /);
      expect(await readdir(installation.dataDir)).not.toContain("redis");
    });

    test("takes the next free one where PORT is not set, and says so", async () => {
      other = createServer().listen(3000, "127.0.0.1");
      // Where somebody else has it, all the better.
      await Promise.race([once(other, "listening"), once(other, "error")]);
      const started = await installation.running({ MODELS_DIR: models, PORT: undefined });
      const { port } = new URL(started.url);
      expect(Number(port)).toBeGreaterThan(3000);
      expect(started.output()).toContain(`Port 3000 is taken: the API listens on ${port}.`);
      expect((await runLine(started.curl)).status).toBe("succeeded");
    });
  });

  test("prints each refused model with its whole reason, and so where none can be served", async () => {
    await mkdir(join(models, "fraud"));
    await writeFile(join(models, "fraud/model.cbm"), "CBM1");
    const started = await installation.running({ MODELS_DIR: models });
    const line =
      /^ {2}fraud: model\.cbm is a CatBoost file; .*Export it to fraud\/1\/model\.onnx: CatBoost: .*"onnx"\)$/m;
    expect(started.output()).toMatch(line);
    started.child.kill("SIGTERM");
    await started.exited;
    await rm(join(models, "scalars"), { recursive: true });
    const failed = installation.start({ MODELS_DIR: models });
    expect(await failed.exited).toBe(78);
    expect(failed.output()).toMatch(/ - fraud: model\.cbm is a CatBoost file; .*"onnx"\)$/m);
  });

  test("prints a curl line that works with own keys and own models, and says where the key goes", async () => {
    await mkdir(join(models, "needs-text"));
    cpSync(join(root, "test/fixtures/models/text-length/1"), join(models, "needs-text/1"), { recursive: true });
    const hash = createHash("sha256").update("my-own-key").digest("hex");
    const started = await installation.running({ MODELS_DIR: models, API_KEYS: `me:${hash}:predict` });
    expect(started.output()).toContain("Try it, with one of your keys in API_KEY");
    expect(started.output()).not.toContain("mr_");
    expect(started.output()).toMatch(/models {4}needs-text, scalars\n/);
    expect((await runLine(started.curl, { API_KEY: "my-own-key" })).status).toBe("succeeded");
  });
});

/** Waits until processes have ended: 5 s, and more on a machine that takes long to start an empty program. */
async function untilGone(processes: readonly number[]): Promise<void> {
  const begun = performance.now();
  await run(process.execPath, ["-e", ""]);
  const emptyMs = performance.now() - begun;
  await eventually(async () => expect(await stillRunning(processes)).toEqual([]), 4900 + 2 * emptyMs);
}

/** The body of a printed curl line, with other fields besides. */
function bodyOf(curl: string, fields: object): string {
  const body = curl.slice(curl.indexOf("-d '") + "-d '".length, -1);
  return JSON.stringify({ ...JSON.parse(body), ...fields });
}
