import { execFile, execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import type { ServiceProcess } from "@millrace/cli/service-process.js";
import { decodeNote, type RunNote } from "@millrace/shared/predictions/run-note.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { expect } from "vitest";
import { eventually } from "../eventually.js";
import type { TestStack } from "./stack.js";

const run = promisify(execFile);

export type TestWorker = ServiceProcess & { port: number };

interface ProcessLine {
  pid: number;
  parent: number;
  state: string;
}

async function processes(): Promise<ProcessLine[]> {
  const { stdout } = await run("ps", ["-A", "-o", "pid=,ppid=,stat="]);
  return stdout
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .map(([pid, parent, state = ""]) => ({ pid: Number(pid), parent: Number(parent), state }));
}

/** The running child processes of a process: a worker's slots. */
export async function childrenOf(pid: number): Promise<number[]> {
  const all = await processes();
  return all.filter(({ parent, state }) => parent === pid && !state.startsWith("Z")).map((child) => child.pid);
}

/** The subset of the processes that still runs; a zombie does not. */
export async function stillRunning(pids: readonly number[]): Promise<number[]> {
  const all = await processes();
  return all.filter(({ pid, state }) => pids.includes(pid) && !state.startsWith("Z")).map(({ pid }) => pid);
}

/** The peak resident memory of a process, in bytes; where the system does not count it, the current one. */
export function peakBytes(pid: number): number {
  const status = `/proc/${pid}/status`;
  if (!existsSync(status)) return 1024 * Number(execFileSync("ps", ["-o", "rss=", "-p", `${pid}`]));
  return 1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync(status, "utf8"))?.[1]);
}

/** The body of a worker's own `/ready`. */
// biome-ignore lint/suspicious/noExplicitAny: see Answer
export async function readiness(worker: TestWorker): Promise<any> {
  return (await fetch(`http://127.0.0.1:${worker.port}/ready`)).json();
}

/** Waits until one of the workers has a run in a slot, and returns that worker. */
export function busyWorker(workers: readonly TestWorker[]): Promise<TestWorker> {
  return eventually(async () => {
    for (const worker of workers) {
      const isUp = worker.port > 0 && worker.child.signalCode === null;
      if (isUp && (await readiness(worker)).slots.busy > 0) return worker;
    }
    throw new Error("no worker is busy");
  });
}

/** Waits until no slot of a worker runs anything. */
export function untilIdle(worker: TestWorker): Promise<void> {
  return eventually(async () => expect((await readiness(worker)).slots.busy).toBe(0));
}

/** Time in ms of an answer that needs no Redis, which shows how busy the machine is. */
export async function healthMs(stack: TestStack): Promise<number> {
  const begun = performance.now();
  expect((await stack.get("/health", { as: null })).status).toBe(200);
  return performance.now() - begun;
}

const betweenProbesMs = 20;

/**
 * An answer and its time in ms, with the longest time of a health check at the same time: a control request, which
 * needs no Redis and shows how busy the machine is.
 */
export async function timedBesideHealth<T>(
  stack: TestStack,
  pending: Promise<T>,
): Promise<{ answer: T; tookMs: number; longestHealthMs: number }> {
  const begun = performance.now();
  let tookMs: number | null = null;
  const timed = pending.finally(() => {
    tookMs = performance.now() - begun;
  });
  // Awaited below; until then a failure must not count as unhandled.
  timed.catch(() => undefined);
  let longestHealthMs = 0;
  do {
    longestHealthMs = Math.max(longestHealthMs, await healthMs(stack));
    await delay(betweenProbesMs);
  } while (tookMs === null);
  return { answer: await timed, tookMs, longestHealthMs };
}

/** Run notes of a model, by prediction. */
export async function runNotes(stack: TestStack, model: string): Promise<Map<string, RunNote>> {
  const notes = await stack.redis.hgetall(modelKeys(stack.prefix, model).running);
  return new Map(Object.entries(notes).map(([id, text]) => [id, decodeNote(text)]));
}

/** Waits until these predictions run in a slot. */
export function untilRunning(stack: TestStack, model: string, ids: readonly string[]): Promise<void> {
  return eventually(async () => {
    const notes = await runNotes(stack, model);
    expect(ids.filter((id) => !notes.has(id))).toEqual([]);
  });
}

/** Waits until workers hold `jobs` jobs of a model, running or waiting for a slot. */
export function untilHeld(stack: TestStack, model: string, jobs: number): Promise<void> {
  return eventually(async () => {
    expect(await stack.redis.llen(`${modelKeys(stack.prefix, model).queue}active`)).toBe(jobs);
  });
}
