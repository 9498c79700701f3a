import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnGuarded } from "@millrace/cli/launch/guarded-child.js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { childrenOf, stillRunning } from "../support/stack/processes.js";

const lockModule = import.meta.resolve("@millrace/cli/launch/data-lock.js");
const guardModule = import.meta.resolve("@millrace/cli/launch/guarded-child.js");

describe("the lock of the data folder", () => {
  let dir: string;
  let children: ChildProcess[];

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "millrace-lock-"));
    children = [];
  });
  afterEach(async () => {
    for (const child of children) child.kill("SIGKILL");
    await rm(dir, { recursive: true, force: true });
  });

  /** A process that tries to lock the data folder `name`, and keeps it. Resolves to its words. */
  async function lock(name = ".data"): Promise<{ child: ChildProcess; said: string }> {
    const code = `import { lockDataFolder } from ${JSON.stringify(lockModule)};
      setInterval(() => undefined, 1000);
      await lockDataFolder(${JSON.stringify(join(dir, name))}).then(
        () => process.stdout.write("held"),
        (fault) => process.stdout.write(fault.name + ": " + fault.message));`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
      cwd: dir,
      stdio: ["ignore", "pipe", "inherit"],
    });
    children.push(child);
    const [said] = await once(child.stdout as NodeJS.ReadableStream, "data");
    return { child, said: String(said) };
  }
  const socketsOf = async (name = ".data") => (await readdir(join(dir, name, "lock"))).sort();

  test("goes to exactly one of many that start at the same moment", async () => {
    for (let round = 0; round < 3; round++) {
      const tried = await Promise.all(Array.from({ length: 8 }, () => lock(`data-${round}`)));
      const holders = tried.filter(({ said }) => said === "held");
      expect(holders).toHaveLength(1);
      for (const { said } of tried) expect(said).toMatch(/^held$|^DataFolderInUseError: .* process \d+/);
      expect(await socketsOf(`data-${round}`)).toHaveLength(1);
    }
  });

  test("is free as soon as its holder is killed, whatever that left behind", async () => {
    const first = await lock();
    expect(first.said).toBe("held");
    expect((await lock()).said).toContain(`process ${first.child.pid}, which is still starting`);
    first.child.kill("SIGKILL");
    await once(first.child, "exit");
    expect(await socketsOf()).toHaveLength(1);
    const second = await lock();
    expect(second.said).toBe("held");
    expect(await socketsOf()).toEqual([expect.stringMatching(new RegExp(`^${second.child.pid}-`))]);
  });

  test("is not held by a file left over under the id of a process that lives", async () => {
    await mkdir(join(dir, ".data/lock"), { recursive: true });
    await writeFile(join(dir, `.data/lock/${process.pid}-abcdef.sock`), "");
    const left = createServer().listen(join(dir, "left.sock"));
    await once(left, "listening");
    left.close();
    expect((await lock()).said).toBe("held");
    expect(await socketsOf()).toHaveLength(1);
  });

  test("is held by a process that does not answer", async () => {
    const first = await lock();
    first.child.kill("SIGSTOP");
    expect((await lock()).said).toContain(`process ${first.child.pid}`);
  });

  test("holds where the path is too long for a socket", async () => {
    const deep = "folder-with-a-long-name/".repeat(6);
    const first = await lock(`${deep}.data`);
    expect(first.said).toBe("held");
    expect((await lock(`${deep}.data`)).said).toContain(`process ${first.child.pid}`);
    expect((await lock(".data")).said).toBe("held");
  });

  test("tells a folder that cannot be written", async () => {
    await writeFile(join(dir, ".data"), "a file");
    expect((await lock()).said).toMatch(/^Error: The data folder .data cannot be used: /);
  });
});

describe("a guarded child", () => {
  test("of a parent that is killed ends with all of its own children", async () => {
    const command = JSON.stringify(["sh", "-c", "sleep 600 & sleep 600"]);
    const code = `import { spawnGuarded } from ${JSON.stringify(guardModule)};
      spawnGuarded("task", ${command});
      setInterval(() => undefined, 1000);`;
    const parent = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: "ignore" });
    const family = [parent.pid as number];
    await eventually(async () => {
      family.length = 1;
      for (const pid of family) family.push(...(await childrenOf(pid)));
      // The guard with its watcher, the shell and the two that sleep.
      expect(family.length).toBeGreaterThanOrEqual(6);
    });
    parent.kill("SIGKILL");
    await eventually(async () => expect(await stillRunning(family)).toEqual([]));
  });

  test("that ignores SIGTERM for a while ends with its parent all the same", async () => {
    const stubborn = 'trap "" TERM; echo up >&2; while :; do sleep 0.1; done';
    const child = spawnGuarded("server", ["sh", "-c", stubborn]);
    const [pid] = await once(child.stdout as NodeJS.ReadableStream, "data");
    (child.stdio[3] as NodeJS.WritableStream).end();
    await once(child, "exit");
    expect(await stillRunning([Number(pid)])).toEqual([]);
  });

  test("hands on the exit code of a task", async () => {
    const [code] = await once(spawnGuarded("task", ["sh", "-c", "exit 3"]), "exit");
    expect(code).toBe(3);
  });
});
