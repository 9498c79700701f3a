import type { RunItem } from "./frames.js";

/**
 * The terms of one version's runs: whether inputs may be joined, the limits of a run, and its delays.
 */
export interface RunQueue {
  model: string;
  version: string;
  modelKey: number;
  /** False for good once a run's outputs were not one per row. */
  joinable: boolean;
  maxBatchRows: number;
  maxDelayMs: number;
  timeoutMs: number;
}

/** Many packs, or one pack with many rows, in the parts of `packParts`. */
export type BulkWork = { packs: readonly Buffer[] } | { table: readonly [Buffer, Uint8Array] };

/** One job that waits for a slot. */
export interface Work {
  id: string;
  runQueue: RunQueue;
  pack: Buffer;
  rows: number;
  /** Owner; "" where only the order of arrival counts. */
  owner: string;
  /** 0 first, then 1 to 1000, among its owner's; in order of arrival among the same. Less than 0: before all. */
  priority: number;
  /** Only works of the same signature are joined: the shapes without their first dimension. */
  signature: string;
  /** Part of a batch, which runs as it is when no other work waits for the slot. */
  bulk?: BulkWork;
  /** Latest start, in ms since the epoch. */
  expiresAt?: number | undefined;
  /** Runs alone, because it was in a run that died. */
  alone: boolean;
  /** Called before the run begins. */
  onBegin(startedAt: number, alone: boolean): void;
}

/** Why an input is to blame for the end of a slot. */
export type BlameCode = "timeout" | "out_of_memory" | "poisoned";

/** The detail of such a failure, for its owner. */
export function blameDetail(code: BlameCode, timeoutMs: number): string {
  if (code === "timeout") return `The run exceeded the model's timeout of ${timeoutMs} ms.`;
  if (code === "poisoned") return "The process that ran this input died.";
  return "The run needed more memory than it may take.";
}

/**
 * `done`, `done in bulk`: it ran. `canceled`: it was ended from outside. `expired`: no slot was free in time. `blamed`:
 * it ran alone, and its slot died or timed out. `released`: it never began, or the worker ended before its run did; it
 * goes back into the queue.
 */
export type Outcome =
  | { kind: "done"; item: RunItem }
  | { kind: "done in bulk"; items: readonly RunItem[]; table: Buffer | null }
  | { kind: "blamed"; code: BlameCode }
  | { kind: "canceled" }
  | { kind: "expired" }
  | { kind: "released" };

/** A work in the dispatcher. */
export interface Waiting extends Work {
  since: number;
  /** Set while it runs with nothing else, so that ending it harms nobody. */
  stop: AbortController | null;
  settle(outcome: Outcome): void;
}

/** Parts of batches yield to everything else, but not for ever. */
const bulkYieldMs = 1000;

/** Whether one work is to begin before another. */
export const isBefore = (a: Waiting, b: Waiting, now: number): boolean => {
  const [yieldsA, yieldsB] = [yields(a, now), yields(b, now)];
  if (yieldsA !== yieldsB) return yieldsB;
  const comparable = a.owner === b.owner || a.priority < 0 || b.priority < 0;
  return comparable && a.priority !== b.priority ? a.priority < b.priority : a.since < b.since;
};

const yields = (work: Waiting, now: number): boolean => work.bulk !== undefined && now - work.since < bulkYieldMs;

/** The rows of works together. */
export const rowsOfWorks = (works: readonly Work[]): number => works.reduce((rows, work) => rows + work.rows, 0);
