import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";

import type { SlotHandle } from "./slot-handle.js";

/** A slot process as its pool knows it. */
export interface Slot {
  handle: SlotHandle;
  state: "starting" | "idle" | "busy" | "gone";
  loaded: Set<number>;
  /** Another has taken its place; it ends with what it runs. */
  leaving: boolean;
  /** Somebody waits for what it runs to end, so that it gets no new run; called then. */
  reserved: (() => void) | null;
  /** Whether it has run anything, so that what it holds can be a leak; and whether it holds too much. */
  ran: boolean;
  overweight: boolean;
}

/** Whether a slot can take a run. */
export const isFree = (slot: Slot): boolean => slot.state === "idle" && slot.reserved === null;

const execute = promisify(execFile);

/** Memory that a process holds in RAM, in bytes; null for one that is gone. Linux tells it in a file, others by `ps`. */
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
