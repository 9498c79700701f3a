import type { PredictionJob } from "@millrace/shared/predictions/job.js";
import type { PredictionStatus, Timings } from "@millrace/shared/predictions/prediction.js";
import type { FailureCode } from "@millrace/shared/service/failure-codes.js";
import type { RunQueue, Work } from "../runs/work.js";

/** A prediction whose job was taken: its data, and the state of its run. */
export interface Taken {
  job: TakenJob;
  id: string;
  lock(): string;
  data: PredictionJob;
  served: ServedVersion;
  /** The input as a slot received it; null before the run. */
  work: Pick<Work, "pack" | "rows" | "signature"> | null;
  startedAt: number | null;
  deaths: number;
  noted: Promise<void>;
}

/** As `Taken`, of a version that need not be served here. */
export type Ended = Omit<Taken, "served"> & { served: EndedVersion };

export type EndCode = FailureCode | "expired";

/** The end of a prediction, before it is written. */
export interface Ending {
  status: PredictionStatus;
  outputJson: string | null;
  /** The output as tensors, where the request asked for them. */
  pack?: Buffer | undefined;
  error: { code: EndCode; detail: string } | null;
  timings: Timings | null;
  confidence: number;
}

/** A version in the slots of this worker. */
export interface ServedVersion {
  model: string;
  version: string;
  digest: string;
  /** Every prepared input is one row of the same shape, so that any can be joined. */
  uniform: boolean;
  attempts: number;
  cacheTtlSeconds: number;
  runQueue: RunQueue;
}

/** The part of a BullMQ job that is used here; a test can call the processor with a plain object. */
export interface TakenJob {
  id?: string | undefined;
  data: unknown;
  timestamp: number;
  /** 0 in BullMQ; `fair-queue.lua` says why. */
  opts?: { priority?: number | undefined };
  /** Attempts that failed before this one. */
  attemptsMade: number;
  /** Number of takes, this one included. */
  attemptsStarted: number;
  endedEarly: boolean;
  moveToDelayed(timestamp: number, token?: string): Promise<unknown>;
  moveToWait(token?: string): Promise<unknown>;
}

/** The part of a version that an end mentions; the version need not be served here any more. */
export type EndedVersion = Pick<ServedVersion, "model" | "version" | "digest" | "cacheTtlSeconds">;

/** The end of a prediction without an output. */
export const failure = (status: PredictionStatus, code: EndCode, detail: string): Ending => ({
  status,
  outputJson: null,
  error: { code, detail },
  timings: null,
  confidence: Number.NaN,
});

export const versionGone = failure("failed", "version_gone", "The version was removed before the prediction was run.");
export const expired = failure("expired", "expired", "The prediction did not start before it expired.");

/**
 * Deaths of slot and worker together, with only this job running, after which the job counts as the cause. More than
 * the attempts, because a kill of the worker from outside also kills its runs.
 */
export const deathsToBlame = 10;
/** Delay of a job whose version is not served here, in ms. */
export const otherVersionDelayMs = 1000;
