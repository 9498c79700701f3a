import { z } from "zod";

/**
 * A worker's breaker of one version. `retryAt`: time of the next probe, in ms since the epoch. `refuses`: whether new
 * requests are refused; a half-open breaker without a sample needs one as its probe.
 */
export const breakerSchema = z.object({
  worker: z.string(),
  version: z.string(),
  state: z.enum(["open", "half_open"]),
  refuses: z.boolean(),
  retryAt: z.number(),
});

export type WorkerBreaker = z.infer<typeof breakerSchema>;

/** A version's breaker over all workers. */
export interface VersionBreaker {
  state: "closed" | "half_open" | "open";
  refuses: boolean;
  /** Time of the next probe of any worker, in ms since the epoch; null where it is closed. */
  retryAt: number | null;
  /** Workers whose own breaker is not closed. */
  workers: number;
}

export const closedBreaker: VersionBreaker = { state: "closed", refuses: false, retryAt: null, workers: 0 };

/**
 * A version's breaker over all workers that live and serve it. One worker with a closed breaker takes the work, so it
 * is open only where there is none. A dead worker's breaker counts while no other worker lives.
 */
export function breakerOf(version: string, said: readonly WorkerBreaker[], alive: readonly string[]): VersionBreaker {
  const all = said.filter((breaker) => breaker.version === version);
  const counted = alive.length === 0 ? all : all.filter(({ worker }) => alive.includes(worker));
  if (counted.length === 0) return closedBreaker;
  const workers = counted.length;
  const retryAt = Math.min(...counted.map((breaker) => breaker.retryAt));
  if (alive.length > workers) return { ...closedBreaker, workers };
  const state = counted.some((breaker) => breaker.state === "half_open") ? "half_open" : "open";
  return { state, refuses: counted.every(({ refuses }) => refuses), retryAt, workers };
}
