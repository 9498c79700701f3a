import { type ChildProcess, execFile } from "node:child_process";
import { access, constants, mkdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { openRedis, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { spawnGuarded } from "./launch/guarded-child.js";

const run = promisify(execFile);
const programs = ["redis-server", "valkey-server"];
const configFile = fileURLToPath(new URL("../../deploy/redis.conf", import.meta.url));
const startDeadlineMs = 30_000;
const closeDeadlineMs = 10_000;
const installDeadlineMs = 300_000;
/** Pause before another try of a package manager that another process uses. */
const lockPauseMs = 500;

/** A Redis to use: the one of `REDIS_URL`, or a private child that ends on `close`. */
export interface FoundRedis {
  url: string;
  /** The child's process id; null for the Redis of `REDIS_URL`. */
  pid: number | null;
  /** Resolves when the child has ended; never for the Redis of `REDIS_URL`. */
  exited: Promise<void>;
  close(): Promise<void>;
}

/** No Redis was found or installed; the message names the three ways to get one. */
export class NoRedisError extends Error {
  constructor(tried: string) {
    super(
      `No Redis found${tried}. Three ways to get one:\n` +
        "  - set REDIS_URL to a running Redis or Valkey, such as REDIS_URL=redis://127.0.0.1:6379\n" +
        "  - install one so that redis-server or valkey-server is on PATH " +
        "(apt install redis-server, brew install redis)\n" +
        "  - run one in a container: docker run -p 6379:6379 redis:7 and REDIS_URL=redis://127.0.0.1:6379",
    );
    this.name = "NoRedisError";
  }
}

/**
 * Finds Redis in the documented order: `REDIS_URL`; a server program on `PATH`; the platform's package manager, where
 * it works without a prompt. A program is started as a private child with its data in `dataDir`. Throws a NoRedisError
 * otherwise.
 */
export async function findRedis(options: {
  redisUrl: string | undefined;
  path: string | undefined;
  dataDir: string;
  say(line: string): void;
}): Promise<FoundRedis> {
  if (options.redisUrl) {
    return { url: options.redisUrl, pid: null, exited: new Promise(() => undefined), close: async () => undefined };
  }
  let program = await findProgram(options.path);
  if (program === null) {
    const tried = await installRedis(options.say);
    program = await findProgram(options.path);
    if (program === null) throw new NoRedisError(tried);
  }
  return startRedis(program, options.dataDir);
}

/** Starts a server as a private child on a free port of 127.0.0.1, durable, with its data in `dataDir`. */
export async function startRedis(program: string, dataDir: string, extraArgs: string[] = []): Promise<FoundRedis> {
  await mkdir(dataDir, { recursive: true });
  // A free port may be taken a moment later, so a failed start is repeated on another.
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    try {
      return await startOn(port, program, dataDir, extraArgs);
    } catch (fault) {
      if (attempt === 3) throw fault;
    }
  }
}

async function startOn(port: number, program: string, dataDir: string, extraArgs: string[]): Promise<FoundRedis> {
  const args = [configFile, "--port", `${port}`, "--bind", "127.0.0.1", "--dir", dataDir, "--daemonize", "no"];
  const logFile = join(dataDir, "redis.log");
  const child = spawnGuarded("server", [program, ...args, "--logfile", logFile, ...extraArgs]);
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.once("error", () => undefined);
  child.stdio[3]?.on("error", () => undefined);
  const pid = Number(await firstLine(child, `${program} could not be started; see ${logFile}`));
  const url = `redis://127.0.0.1:${port}`;
  const close = async () => {
    // The child was unreferenced when ready, and Node does not wait for an unreferenced child.
    child.ref();
    (child.stdio[3] as NodeJS.WritableStream).end();
    // A server that is writing its first append-only file ignores SIGTERM.
    const timer = setTimeout(() => process.kill(pid, "SIGKILL"), closeDeadlineMs);
    await exited;
    clearTimeout(timer);
  };
  const probe = openRedis(parseRedisUrl(url), "patient", "millrace-probe");
  probe.on("error", () => undefined);
  try {
    await Promise.race([
      whenReady(probe, startDeadlineMs),
      exited.then(() => {
        throw new Error(`${program} ended during its start; see ${logFile}`);
      }),
    ]);
  } catch (fault) {
    await close();
    throw fault;
  } finally {
    probe.disconnect();
  }
  child.unref();
  return { url, pid, exited, close };
}

/** Rejects with the fault where the child ends before its first line. */
function firstLine(child: ChildProcess, fault: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      text += chunk;
      if (text.includes("\n")) resolve(text.slice(0, text.indexOf("\n")));
    });
    child.once("exit", () => reject(new Error(fault)));
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** The first of the server programs on `PATH`, or in the usual folders of package managers. */
async function findProgram(path: string | undefined): Promise<string | null> {
  const folders = [...(path ?? "").split(delimiter), "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"].filter(Boolean);
  for (const program of programs) {
    for (const folder of folders) {
      const file = join(folder, program);
      if (
        await access(file, constants.X_OK).then(
          () => true,
          () => false,
        )
      )
        return file;
    }
  }
  return null;
}

/** The installation on its way in this process. */
let installing: Promise<string> | null = null;

/**
 * Installs Redis where it works without a prompt. Resolves to the failed attempt, in words for the error. Calls at the
 * same time share one installation, and one waits for the package manager while another process uses it.
 */
export function installRedis(say: (line: string) => void): Promise<string> {
  installing ??= install(say).finally(() => {
    installing = null;
  });
  return installing;
}

async function install(say: (line: string) => void): Promise<string> {
  // The package would start a server of its own; the run level keeps the machine as it is.
  const settings = ["LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"];
  const asRoot = [...(process.getuid?.() === 0 ? [] : ["sudo", "-n"]), "env", ...settings];
  const recipes: { manager: string; commands: string[][] }[] = [
    {
      manager: "apt-get",
      commands: [
        [...asRoot, "apt-get", "update", "-qq"],
        [...asRoot, "apt-get", "install", "-y", "-qq", "redis-server"],
      ],
    },
    { manager: "brew", commands: [["brew", "install", "redis"]] },
  ];
  for (const { manager, commands } of recipes) {
    const isThere = await run("sh", ["-c", `command -v ${manager}`]).then(
      () => true,
      () => false,
    );
    if (!isThere) continue;
    say(`Redis is not installed; getting it with ${manager} …`);
    try {
      for (const command of commands) await runUnlocked(command);
      return "";
    } catch (fault) {
      return `, and ${manager} could not install it (${(fault as Error).message.split("\n")[0]})`;
    }
  }
  return "";
}

/** Runs a command of a package manager, again while another process holds the manager's lock. */
async function runUnlocked([command, ...args]: string[]): Promise<void> {
  const until = performance.now() + installDeadlineMs;
  for (;;) {
    try {
      await run(command as string, args, { timeout: installDeadlineMs });
      return;
    } catch (fault) {
      if (!/could not get lock/i.test((fault as Error).message) || performance.now() > until) throw fault;
      await delay(lockPauseMs);
    }
  }
}

/** Removes a private Redis's data, for tests. */
export const removeData = (dataDir: string): Promise<void> => rm(dataDir, { recursive: true, force: true });
