import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";

import type { SlotHandle } from "./slot-handle.js";

/** A slot process as its pool knows it. */
export interface Slot {
  handle: SlotHandle;
  state: "starting" | "idle" | "busy" | "gone";
  loaded: Set<number>;
  /** Another process has its place; it ends with its current run. */
  leaving: boolean;
  /** Called at the end of its current run, after which it takes no other; null where nobody waits for that. */
  reserved: (() => void) | null;
  /** A load keeps it busy at its place; a death then is not that of a run. */
  loading: boolean;
  /** Whether it has run anything, so that its memory may be a leak, and whether it is over the limit. */
  ran: boolean;
  overweight: boolean;
}

/** Whether a slot can take a run. */
export const isFree = (slot: Slot): boolean => slot.state === "idle" && slot.reserved === null;

/** Whether it is alive and takes runs, now or after the current one. */
export const isServing = ({ state }: Slot): boolean => state === "idle" || state === "busy";

const execute = promisify(execFile);

/** Resident memory of a process in bytes, from /proc or `ps`; null for one that has ended. */
export async function residentBytes(pid: number): Promise<number | null> {
  try {
    const kib =
      process.platform === "linux"
        ? /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1]
        : (await execute("ps", ["-o", "rss=", "-p", String(pid)])).stdout.trim();
    return kib ? Number(kib) * 1024 : null;
  } catch {
    return null;
  }
}
