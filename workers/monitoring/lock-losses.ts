import type { Logger } from "@millrace/shared/service/log.js";
import type { WorkerMetrics } from "./metrics.js";

type HeldJobKind = "prediction" | "chunk" | "delivery" | "redrive";

export type LockLosses = (kind: HeldJobKind, count: number) => void;

const logEveryMs = 1000;

/**
 * Counts the locks that this worker has lost, by kind of job, and logs their number at most once a second: other
 * workers run these jobs again.
 */
export function createLockLosses(metrics: WorkerMetrics, log: Logger): LockLosses {
  const unlogged = new Map<HeldJobKind, number>();
  let timer: NodeJS.Timeout | null = null;
  const write = () => {
    timer = null;
    const jobs = Object.fromEntries(unlogged);
    unlogged.clear();
    log.warn("locks of jobs lost, which other workers run again: this worker is short of CPU or of Redis", { jobs });
  };
  return (kind, count) => {
    metrics.locksLost.inc({ kind }, count);
    unlogged.set(kind, (unlogged.get(kind) ?? 0) + count);
    if (timer === null) timer = setTimeout(write, logEveryMs).unref();
  };
}
