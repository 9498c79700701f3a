import { type ChildProcess, execFile, spawn } from "node:child_process";
import { access, constants, mkdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { openRedis, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";

const run = promisify(execFile);
const programs = ["redis-server", "valkey-server"];
const configFile = fileURLToPath(new URL("../../deploy/redis.conf", import.meta.url));
const startDeadlineMs = 30_000;
const closeDeadlineMs = 10_000;

/** A Redis to use: the one of `REDIS_URL`, or a private child that ends on `close`. */
export interface FoundRedis {
  url: string;
  /** The child's process id; null for the Redis of `REDIS_URL`. */
  pid: number | null;
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
  if (options.redisUrl) return { url: options.redisUrl, pid: null, close: async () => undefined };
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
  // The shell in between watches its input: when this process ends, in whatever way, Redis is ended too. Its own
  // process group keeps Ctrl-C from ending Redis before its users.
  const child = spawn(
    "sh",
    ["-c", '"$@" & pid=$!; echo $pid; { cat >/dev/null; kill $pid; } <&3 & wait $pid', "sh", program, ...args]
      .concat(["--logfile", logFile, ...extraArgs])
      .map(String),
    { stdio: ["ignore", "pipe", "ignore", "pipe"], detached: true },
  );
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
  return { url, pid, close };
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

/** Installs Redis where it works without a prompt. Resolves to the failed attempt, in words for the error. */
async function installRedis(say: (line: string) => void): Promise<string> {
  const asRoot = process.getuid?.() === 0 ? [] : ["sudo", "-n"];
  const recipes: string[][][] = [
    [
      [...asRoot, "apt-get", "update", "-qq"],
      // The package would start a server of its own; --no-install-recommends and the policy keep the machine as it is.
      [
        ...asRoot,
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "RUNLEVEL=1",
        "apt-get",
        "install",
        "-y",
        "-qq",
        "redis-server",
      ],
    ],
    [["brew", "install", "redis"]],
  ];
  for (const recipe of recipes) {
    const manager = recipe.at(-1)?.find((word) => word === "apt-get" || word === "brew") as string;
    if (
      !(await run("sh", ["-c", `command -v ${manager}`]).then(
        () => true,
        () => false,
      ))
    )
      continue;
    say(`Redis is not installed; getting it with ${manager} …`);
    try {
      for (const [command, ...args] of recipe) await run(command as string, args, { timeout: 300_000 });
      return "";
    } catch (fault) {
      return `, and ${manager} could not install it (${(fault as Error).message.split("\n")[0]})`;
    }
  }
  return "";
}

/** Removes a private Redis's data, for tests. */
export const removeData = (dataDir: string): Promise<void> => rm(dataDir, { recursive: true, force: true });
