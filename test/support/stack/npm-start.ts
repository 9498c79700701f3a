import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { eventually } from "../eventually.js";
import { root } from "../run/tools.js";
import { childrenOf, stillRunning } from "./processes.js";

const readyMs = 120_000;

/** A run of `npm start` by npm itself. */
export interface StartedNpm {
  child: ChildProcess;
  /** Standard output and standard error so far. */
  output(): string;
  /** Resolves to exit code or signal. */
  exited: Promise<number | NodeJS.Signals>;
}

/** A folder in which `npm start` runs this checkout, with a data folder of its own. */
export class Installation {
  readonly dir: string;
  readonly #started: StartedNpm[] = [];
  readonly #seen = new Set<number>();

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async make(): Promise<Installation> {
    const dir = await mkdtemp(join(tmpdir(), "millrace-start-"));
    const { scripts } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
    const start = (scripts.start as string).replace("cli/launch/launch.js", `'${join(root, "cli/launch/launch.js")}'`);
    await writeFile(join(dir, "package.json"), JSON.stringify({ name: "start", private: true, scripts: { start } }));
    return new Installation(dir);
  }

  get dataDir(): string {
    return join(this.dir, ".data");
  }

  /** Runs `npm start` with the fixtures `scalars`, one slot, and free ports unless `env` says otherwise. */
  start(env: Record<string, string | undefined> = {}, ...args: string[]): StartedNpm {
    const child = spawn("npm", ["start", "--", ...args], {
      cwd: this.dir,
      env: {
        ...{ PATH: process.env.PATH, HOME: this.dir, NODE_V8_COVERAGE: process.env.NODE_V8_COVERAGE },
        ...{ npm_config_update_notifier: "false", PORT: "0", WORKER_PORT: "0", WORKER_SLOTS: "1" },
        ...env,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (chunk) => {
        text += chunk;
      });
    }
    const started: StartedNpm = {
      child,
      output: () => text,
      exited: new Promise((resolve) => child.once("close", (code, signal) => resolve(signal ?? (code as number)))),
    };
    this.#started.push(started);
    return started;
  }

  /** The same, once everything runs; resolves with the URL of the API and its key. */
  async running(env: Record<string, string | undefined> = {}) {
    const started = this.start(env);
    await eventually(() => expect(started.output()).toContain("Ctrl-C stops everything."), readyMs);
    const said = (pattern: RegExp) => pattern.exec(started.output())?.[1] as string;
    return Object.assign(started, {
      url: said(/API {7}(\S+)/),
      key: said(/API key {3}(mr_\S+)/),
      curl: said(/^(curl .*)$/m),
      processes: await this.processesOf(started),
    });
  }

  /** Every process below npm, and npm itself. */
  async processesOf({ child }: StartedNpm): Promise<number[]> {
    const found = [child.pid as number];
    for (const pid of found) found.push(...(await childrenOf(pid)));
    for (const pid of found) this.#seen.add(pid);
    return found;
  }

  /** Ends what still runs. Rejects where a start left a process behind. */
  async close(): Promise<void> {
    for (const { child } of this.#started) child.kill("SIGTERM");
    await Promise.all(this.#started.map(({ exited }) => exited));
    await eventually(async () => expect(await stillRunning([...this.#seen])).toEqual([]));
    await rm(this.dir, { recursive: true, force: true });
  }
}
