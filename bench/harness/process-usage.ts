import { readFileSync, writeFileSync } from "node:fs";

/** A watched process. */
export interface Watched {
  name: string;
  pid: number;
}

/** Usage of a process since its start. */
export interface Usage {
  cpuSeconds: number;
  /** Peak resident set so far. */
  peakMiB: number;
}

const ticksPerSecond = 100;

/** Reads /proc; throws if it or the process is missing. */
export function usageOf(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name may contain blanks and parentheses; the fields follow the last one. utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return {
    cpuSeconds: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond,
    peakMiB: fieldKiB(`/proc/${pid}/status`, "VmHWM") / 1024,
  };
}

/** Resets the peak resident set of a process to the present one. */
export const forgetPeak = (pid: number): void => writeFileSync(`/proc/${pid}/clear_refs`, "5");

/** Living child processes of a process. */
export function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return text === "" ? [] : text.split(" ").map(Number);
}

/** Sum of the resident memory of processes: each page counted in every process (rss), or divided among them (pss). */
export function memoryOf(pids: readonly number[]): { rssMiB: number; pssMiB: number } {
  const sum = (field: string) =>
    pids.reduce((total, pid) => total + fieldKiB(`/proc/${pid}/smaps_rollup`, field), 0) / 1024;
  return { rssMiB: sum("Rss"), pssMiB: sum("Pss") };
}

function fieldKiB(file: string, field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync(file, "utf8"));
  if (match === null) throw new Error(`${file} has no ${field}`);
  return Number(match[1]);
}
