import { readFileSync, writeFileSync } from "node:fs";

/** A process under watch. */
export interface Watched {
  name: string;
  pid: number;
}

/** What a process has used since it began. */
export interface Usage {
  cpuSeconds: number;
  /** Its largest resident set so far. */
  peakMiB: number;
}

const ticksPerSecond = 100;

/** Reads /proc; throws where there is none, or no such process. */
export function usageOf(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name may hold blanks and parentheses; what follows its last one does not. utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return {
    cpuSeconds: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond,
    peakMiB: fieldKiB(`/proc/${pid}/status`, "VmHWM") / 1024,
  };
}

/** Lets the largest resident set of a process be counted anew from what it is now. */
export const forgetPeak = (pid: number): void => writeFileSync(`/proc/${pid}/clear_refs`, "5");

/** Processes that this one started and that still live. */
export function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return text === "" ? [] : text.split(" ").map(Number);
}

/** Resident memory of processes together: each page counted in every process (rss), or divided among them (pss). */
export function memoryOf(pids: readonly number[]): { rssMiB: number; pssMiB: number } {
  const sum = (field: string) =>
    pids.reduce((total, pid) => total + fieldKiB(`/proc/${pid}/smaps_rollup`, field), 0) / 1024;
  return { rssMiB: sum("Rss"), pssMiB: sum("Pss") };
}

function fieldKiB(file: string, field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync(file, "utf8"));
  if (match === null) throw new Error(`${file} does not tell ${field}`);
  return Number(match[1]);
}
