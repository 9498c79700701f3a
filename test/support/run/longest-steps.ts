import { appendFileSync } from "node:fs";
import { setPriority } from "node:os";
import type { Redis } from "ioredis";

/** Longest that one step may keep Redis from everybody else. */
export const longestStepMs = 10;
const mostEntries = 1000;
const beforeOthers = -15;

/** Settings under which a Redis notes commands that took longer than that. */
export const slowLogSettings = {
  "slowlog-log-slower-than": String(1000 * longestStepMs),
  "slowlog-max-len": String(mostEntries),
};

/** A command that took too long. */
export interface SlowCommand {
  ms: number;
  /** The command and the first of its arguments, as `SLOWLOG` keeps them. */
  words: string[];
}

/**
 * Lets a Redis of this machine run before other processes, so that the time of a step is its own. Returns whether that
 * is allowed.
 */
export function runBeforeOthers(pid: number): boolean {
  try {
    setPriority(pid, beforeOthers);
    return true;
  } catch {
    return false;
  }
}

/** Scripts that took too long, by the slow log, and other commands that did, which tell of a busy machine. */
export async function readSlowLog(redis: Redis): Promise<{ scripts: SlowCommand[]; others: SlowCommand[] }> {
  const entries = (await redis.slowlog("GET", mostEntries)) as [number, number, number, string[]][];
  const commands = entries
    .map(([, , microseconds, words]) => ({
      ms: Math.round(microseconds / 100) / 10,
      words: words.slice(0, 4).map((word) => word.slice(0, 60)),
    }))
    .filter(({ ms }) => ms > longestStepMs);
  const isScript = ({ words }: SlowCommand) => /^eval/i.test(words[0] ?? "");
  return { scripts: commands.filter(isScript), others: commands.filter((command) => !isScript(command)) };
}

/** Tells `run-tests.js` of steps that took too long in tests of a file, whose path is relative to the project. */
export function noteSlowSteps(file: string, scripts: readonly SlowCommand[]): void {
  const notes = process.env.SLOW_STEPS_FILE;
  if (notes === undefined) return;
  for (const { ms, words } of scripts) {
    appendFileSync(notes, `${JSON.stringify({ file, script: words[1], ms, words })}\n`);
  }
}
