import { z } from "zod";

/**
 * What a worker says of a version that dies in its slots. `retryAt`: when it is tried next, in ms since the epoch.
 * `refuses`: whether callers are to be turned away; a half-open breaker without a sample to try needs a job of theirs.
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
  /** When a worker tries it next, in ms since the epoch; null where it is closed. */
  retryAt: number | null;
  /** Workers whose own breaker of it is not closed. */
  workers: number;
}

export const closedBreaker: VersionBreaker = { state: "closed", refuses: false, retryAt: null, workers: 0 };

/**
 * A version's breaker, of what workers say and of those that live and serve it. One worker for which it is closed takes
 * the work, so it is open only where none is; what a worker said before it died holds while no other lives.
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
