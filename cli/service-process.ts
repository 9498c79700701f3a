import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { exitConfig } from "@millrace/shared/config/common-config.js";
import { endWithParentArgument } from "@millrace/shared/config/end-with-parent.js";

const programs = {
  api: fileURLToPath(new URL("../../api/dist/main.js", import.meta.url)),
  worker: fileURLToPath(new URL("../../workers/dist/main.js", import.meta.url)),
};

/** A line of a service's log. */
export type LogLine = Record<string, unknown> & { message?: string; level?: string };

/** A service ended before it was ready; the message has its own words. */
export class ServiceFailedError extends Error {
  /** What the service ended with, where that says that its configuration is at fault; else 1. */
  readonly exitCode: number;

  constructor(kind: string, how: number | NodeJS.Signals, complaint: string) {
    const isConfig = how === exitConfig;
    const what = isConfig ? `The ${kind} cannot start.` : `${kind} ended (${how}) before it was ready`;
    super(`${what}\n${complaint}`.trimEnd());
    this.name = "ServiceFailedError";
    this.exitCode = isConfig ? exitConfig : 1;
  }
}

/** An API or a worker as a separate process, which ends when this one does, in whatever way. */
export interface ServiceProcess {
  readonly pid: number;
  readonly child: ChildProcess;
  /** Resolves to the listening port when the service is ready; rejects with its output if it ends before. */
  readonly ready: Promise<number>;
  /** Resolves to exit code or signal. */
  readonly exited: Promise<number | NodeJS.Signals>;
  /** SIGTERM, then SIGKILL when that takes longer than `graceMs`. */
  stop(graceMs?: number): Promise<number | NodeJS.Signals>;
}

/** Starts an API or a worker from its compiled program, or from another, with exactly that environment. */
export function spawnService(
  kind: keyof typeof programs,
  env: Record<string, string | undefined>,
  onLine: (line: LogLine) => void = () => undefined,
  program: string = programs[kind],
): ServiceProcess {
  const child = spawn(process.execPath, [program, endWithParentArgument], { env, stdio: ["pipe", "pipe", "pipe"] });
  child.stdin?.on("error", () => undefined);
  let port = 0;
  let complaint = "";
  const exited = new Promise<number | NodeJS.Signals>((resolve) => {
    child.once("exit", (code, signal) => resolve(signal ?? (code as number)));
  });
  const ready = new Promise<number>((resolve, reject) => {
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on("line", (text) => {
      const line = parseLine(text);
      if (typeof line.port === "number") port = line.port;
      if (line.message === `${kind} ready`) resolve(port);
      onLine(line);
    });
    createInterface({ input: child.stderr as NodeJS.ReadableStream }).on("line", (text) => {
      complaint += `${text}\n`;
      onLine({ level: "error", message: text });
    });
    void exited.then((how) => reject(new ServiceFailedError(kind, how, complaint)));
  });
  // Callers that do not wait for readiness learn of the end by `exited`.
  ready.catch(() => undefined);
  return {
    pid: child.pid as number,
    child,
    ready,
    exited,
    async stop(graceMs = 35_000) {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), graceMs);
      const how = await exited;
      clearTimeout(timer);
      return how;
    },
  };
}

function parseLine(text: string): LogLine {
  try {
    return JSON.parse(text) as LogLine;
  } catch {
    return { message: text };
  }
}
