import type { PredictionJob } from "@millrace/shared/predictions/job.js";
import type { PredictionStatus, Timings } from "@millrace/shared/predictions/prediction.js";
import type { FailureCode } from "@millrace/shared/service/failure-codes.js";
import type { RunQueue, Work } from "../runs/work.js";

/** A prediction as it is taken: what the job says, and what is known of it by now. */
export interface Taken {
  job: TakenJob;
  id: string;
  lock(): string;
  data: PredictionJob;
  served: ServedVersion;
  /** The input as it was given to a slot, once it was. */
  work: Pick<Work, "pack" | "rows" | "signature"> | null;
  startedAt: number | null;
  deaths: number;
  noted: Promise<void>;
}

/** As `Taken`, of a version that need not be here. */
export type Ended = Omit<Taken, "served"> & { served: EndedVersion };

export type EndCode = FailureCode | "expired";

/** The end of a prediction, before it is written. */
export interface Ending {
  status: PredictionStatus;
  outputJson: string | null;
  /** The output as tensors, where that is wanted. */
  pack?: Buffer | undefined;
  error: { code: EndCode; detail: string } | null;
  timings: Timings | null;
  confidence: number;
}

/** A version that this worker has in its slots. */
export interface ServedVersion {
  model: string;
  version: string;
  digest: string;
  /** All inputs are one row of the same shape once prepared, so that nothing needs to be compared to join them. */
  uniform: boolean;
  attempts: number;
  cacheTtlSeconds: number;
  runQueue: RunQueue;
}

/** What of a BullMQ job is used here; a test can call the processor with a plain object. */
export interface TakenJob {
  id?: string | undefined;
  data: unknown;
  timestamp: number;
  /** Its priority in BullMQ is 0; see `fair-queue.ts`. */
  opts?: { priority?: number | undefined };
  /** Attempts that failed before this one. */
  attemptsMade: number;
  /** Times that it was taken, this one included. */
  attemptsStarted: number;
  endedEarly: boolean;
  moveToDelayed(timestamp: number, token?: string): Promise<unknown>;
  moveToWait(token?: string): Promise<unknown>;
}

/** A version as far as an end tells of it; it need not be here any more. */
export type EndedVersion = Pick<ServedVersion, "model" | "version" | "digest" | "cacheTtlSeconds">;

/** The end of a prediction without an output. */
export const failure = (status: PredictionStatus, code: EndCode, detail: string): Ending => ({
  status,
  outputJson: null,
  error: { code, detail },
  timings: null,
  confidence: Number.NaN,
});

export const versionGone = failure("failed", "version_gone", "the version was taken away before this was run");
export const expired = failure("expired", "expired", "it was not started in time");

/**
 * How often a job may be running alone while slot and worker die together before it counts as the cause. It is more
 * than an attempt, because whoever kills a worker from outside kills whatever happens to run.
 */
export const deathsToBlame = 10;
/** How long a job waits for a worker that has its version, when this one has not. */
export const otherVersionDelayMs = 1000;
