import { spawn } from "node:child_process";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

const readyDeadlineMs = 30_000;
const lookEveryMs = 5;
const alive = new Set<() => void>();
process.once("exit", () => {
  for (const kill of alive) kill();
});

/** A service as a separate process. */
export interface BenchProcess {
  readonly pid: number;
  /** The port in its log; 0 for none. */
  readonly port: number;
  /** Time from before the spawn to the log line for readiness. */
  readonly readyAfterMs: number;
  kill(signal: NodeJS.Signals): void;
  /** Sends SIGTERM and waits for the end; sends SIGKILL after a time limit. May be called after the end. */
  stop(): Promise<void>;
}

/**
 * Starts a program and waits for the log line with the message `<kind> ready`. Its log goes to a file, so that no
 * process is busy reading it during a measurement. `BENCH_<NAME>_NODE_ARGS` is passed to node, for profiling.
 */
export async function startProcess(
  name: string,
  kind: "api" | "worker",
  program: string,
  env: Record<string, string | undefined>,
): Promise<BenchProcess> {
  const dir = await mkdtemp(join(tmpdir(), "millrace-bench-log-"));
  const logFile = join(dir, "log");
  const log = await open(logFile, "w");
  const nodeArgs = process.env[`BENCH_${name.toUpperCase()}_NODE_ARGS`]?.split(" ") ?? [];
  const spawnedAt = Date.now();
  const child = spawn(process.execPath, [...nodeArgs, program], { env, stdio: ["ignore", log.fd, log.fd] });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const hardKill = () => child.kill("SIGKILL");
  alive.add(hardKill);
  await log.close();
  void exited.then(() => alive.delete(hardKill));
  const stop = async () => {
    child.kill("SIGTERM");
    const timer = setTimeout(hardKill, 40_000);
    await exited;
    clearTimeout(timer);
    await rm(dir, { recursive: true, force: true });
  };
  try {
    const { port, readyAt } = await untilReady(logFile, `${kind} ready`, () => child.exitCode ?? child.signalCode);
    const readyAfterMs = (readyAt ?? Date.now()) - spawnedAt;
    return { pid: child.pid as number, port, readyAfterMs, kill: (signal) => child.kill(signal), stop };
  } catch (fault) {
    await stop();
    throw fault;
  }
}

async function untilReady(logFile: string, message: string, ended: () => unknown) {
  const deadline = Date.now() + readyDeadlineMs;
  for (;;) {
    const text = await readFile(logFile, "utf8");
    if (text.includes(message)) {
      const lines = text.split("\n").filter((line) => line.startsWith("{") && line.endsWith("}"));
      const entries = lines.map((line) => JSON.parse(line) as { message: string; port?: number; timestamp?: string });
      const ready = entries.find((entry) => entry.message === message);
      if (ready !== undefined) {
        const port = entries.find((entry) => typeof entry.port === "number")?.port ?? 0;
        return { port, readyAt: ready.timestamp === undefined ? null : Date.parse(ready.timestamp) };
      }
    }
    if (ended() !== null) throw new Error(`a process ended before it logged "${message}":\n${text}`);
    if (Date.now() > deadline) throw new Error(`no log line "${message}" within ${readyDeadlineMs} ms:\n${text}`);
    await delay(lookEveryMs);
  }
}
