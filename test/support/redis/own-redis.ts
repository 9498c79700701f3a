import { type ChildProcess, spawn } from "node:child_process";
import { constants, copyFile, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findRedis } from "@millrace/cli/redis-server.js";
import { openRedis, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { Redis } from "ioredis";
import { noteSlowSteps, readSlowLog, runBeforeOthers, slowLogSettings } from "../run/longest-steps.js";
import { runningFile } from "../run/prefix.js";

const answerMs = 1000;
const configFile = fileURLToPath(new URL("../../../deploy/redis.conf", import.meta.url));

/**
 * A Redis that a test may kill and restart on the same port and data. For tests of outages: the Redis shared by all
 * test files must stay up.
 */
export class OwnRedis {
  readonly url: string;
  readonly #port: number;
  readonly #dataDir: string;
  readonly #program: string;
  readonly #args: readonly string[];
  #child: ChildProcess | null = null;
  readonly #endWithMe = () => this.#child?.kill("SIGKILL");

  private constructor(port: number, dataDir: string, program: string, args: readonly string[]) {
    this.#args = args;
    this.#port = port;
    this.#dataDir = dataDir;
    this.#program = program;
    this.url = `redis://127.0.0.1:${port}`;
    process.once("exit", this.#endWithMe);
  }

  /** `args`: settings for the command line, beside those of `deploy/redis.conf`. */
  static async start(args: readonly string[] = []): Promise<OwnRedis> {
    const dataDir = await mkdtemp(join(tmpdir(), "millrace-own-redis-"));
    const redis = new OwnRedis(await freePort(), dataDir, await programOnPath(), args);
    await redis.resume();
    return redis;
  }

  get port(): number {
    return this.#port;
  }

  get pid(): number {
    return this.#child?.pid as number;
  }

  /** Sends SIGKILL; resolves when the process has ended. */
  async kill(): Promise<void> {
    const child = this.#child as ChildProcess;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await exited;
    this.#child = null;
  }

  /** Restarts it; resolves when it has read its data and answers. */
  async resume(): Promise<void> {
    // A copy, because a failover writes into the file.
    const ownConfig = join(this.#dataDir, "redis.conf");
    await copyFile(configFile, ownConfig, constants.COPYFILE_EXCL).catch((fault: NodeJS.ErrnoException) => {
      if (fault.code !== "EEXIST") throw fault;
    });
    const args = [ownConfig, "--port", `${this.#port}`, "--bind", "127.0.0.1", "--dir", this.#dataDir];
    const watched = Object.entries(slowLogSettings).flatMap(([name, value]) => [`--${name}`, value]);
    this.#child = spawn(this.#program, [...args, "--daemonize", "no", ...watched, ...this.#args], { stdio: "ignore" });
    runBeforeOthers(this.pid);
    const probe = openRedis(parseRedisUrl(this.url), "patient", "probe");
    probe.on("error", () => undefined);
    await whenReady(probe, 20_000).finally(() => probe.disconnect());
  }

  async close(): Promise<void> {
    if (this.#child !== null) {
      await this.#noteSlowSteps();
      await this.kill();
    }
    process.off("exit", this.#endWithMe);
    await rm(this.#dataDir, { recursive: true, force: true });
  }

  async #noteSlowSteps(): Promise<void> {
    const client = new Redis({ port: this.#port, connectTimeout: answerMs, commandTimeout: answerMs });
    client.on("error", () => undefined);
    // One that a test has stopped, or that takes no commands, tells nothing.
    const log = await readSlowLog(client).catch(() => null);
    client.disconnect();
    if (log !== null) noteSlowSteps(runningFile(), log.scripts);
  }
}

/** The server program that the product finds and starts. */
export function programOnPath(): Promise<string> {
  program ??= findProgram();
  return program;
}

let program: Promise<string> | null = null;

async function findProgram(): Promise<string> {
  const dataDir = await mkdtemp(join(tmpdir(), "millrace-find-redis-"));
  const found = await findRedis({ redisUrl: undefined, path: process.env.PATH, dataDir, say: () => undefined });
  const client = openRedis(parseRedisUrl(found.url), "patient", "probe");
  try {
    const { executable } = Object.fromEntries(
      (await (client as { info(section: string): Promise<string> }).info("server"))
        .split("\r\n")
        .map((line) => line.split(":")),
    ) as { executable: string };
    return executable;
  } finally {
    client.disconnect();
    await found.close();
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** A free port whose neighbour 10,000 above is free too, since a cluster node uses both. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = await portOf(0);
    const sibling = port <= 55_535 ? await portOf(port + 10_000).catch(() => null) : null;
    if (sibling !== null) return port;
  }
}

function portOf(wanted: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(wanted, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
