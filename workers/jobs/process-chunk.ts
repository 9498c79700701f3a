import {
  type BulkChunk,
  decodeChunk,
  encodeChunk,
  isShrunk,
  shrinkChunk,
  type UnencodedChunk,
} from "@millrace/shared/predictions/bulk-chunk.js";
import { failedLines } from "@millrace/shared/predictions/line-faults.js";
import { chunkOverheadBytes, type OnStored } from "@millrace/shared/predictions/storage-counter.js";
import { expectLargeBuffers } from "@millrace/shared/redis/large-buffers.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { ChunkFinish } from "@millrace/shared/scripts/batches/finish-chunk.js";
import type { TakenChunk } from "@millrace/shared/scripts/batches/take-chunk.js";
import type { JobHistory } from "@millrace/shared/scripts/predictions/run-notes.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { z } from "zod";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { DelayedError, WaitingError } from "../queue/bullmq.js";
import type { Dispatcher } from "../runs/dispatcher.js";
import { type BlameCode, blameDetail, type Outcome } from "../runs/work.js";
import { allFailed, type ChunkPart, fromItems, fromTable, joinTwo, mergeLines } from "./chunk-part.js";
import { boundsOf, rowsOfChunk } from "./chunk-rows.js";
import type { JobBreaker } from "./job-breaker.js";
import type { RunNotebook } from "./run-notebook.js";
import { deathsToBlame, otherVersionDelayMs, type ServedVersion } from "./taken-prediction.js";

/** The part of a BullMQ job that is used here. */
export interface ChunkJob {
  id?: string | undefined;
  data: unknown;
  attemptsStarted: number;
  moveToDelayed(timestamp: number, token?: string): Promise<unknown>;
  moveToWait(token?: string): Promise<unknown>;
}

export interface ProcessChunkOptions {
  model: string;
  workerId: string;
  /** Concurrent runs of this worker. */
  slots: number;
  version(name: string): ServedVersion | undefined;
  /** Whether a version that is not served here is known, so that another worker may serve it. */
  isKnown(version: string): Promise<boolean>;
  breaker(served: ServedVersion): JobBreaker;
  dispatcher: Pick<Dispatcher, "submit">;
  /** The chunk's version and inputs; null where the batch has ended. */
  take(batch: string, number: number): Promise<TakenChunk | null>;
  /** Marks the batch as started. */
  begin(batch: string): Promise<void>;
  finish(finish: ChunkFinish): Promise<string>;
  /** Told of the size of the outputs that are written, and whose they are. */
  onStored: OnStored;
  notebook: Pick<RunNotebook, "note" | "noteLater" | "ended" | "forget">;
  history(id: string): Promise<JobHistory>;
  metrics: WorkerMetrics;
  clock: Clock;
  log: Logger;
}

/** Runs rows [from, to) of a chunk; `again`: it is not the last try. */
type SubmitRows = (from: number, to: number, again: boolean) => Promise<RowsOutcome>;

/** How a run of rows ended: blamed rows with the detail for their owner. */
type RowsOutcome = Exclude<Outcome, { kind: "blamed" }> | { kind: "blamed"; code: BlameCode; detail: string };

interface ChunkOutputsOf {
  batch: string;
  number: number;
  version: string;
  lock(): string;
  taken: TakenChunk;
}

const chunkJobSchema = z.object({ v: z.literal(1), b: z.string(), n: z.int().min(0) });

/** Whether a job's return value means that the chunk's outputs are in Redis. */
export const hasOutputs = (words: string): boolean => ["written", "ended batch", "done"].includes(words);

/** The slots closed before the chunk was done, or the version is out of service; no output is kept. */
class ReleasedError extends Error {}

/**
 * The processor of a chunk's job. A chunk runs as one. If it kills its slot it runs again, and then in halves, down to
 * the lines that are to blame. Outputs are written once, before the job completes, so that a chunk that is handed out
 * twice counts once.
 */
export function processChunk(options: ProcessChunkOptions) {
  const { dispatcher, history, metrics, model, notebook, workerId } = options;

  /** `lock`: returns the token that counts at the end, which may be a later one than `token`. */
  return async (job: ChunkJob, token: string, lock = () => token): Promise<string> => {
    const jobId = job.id as string;
    const { b: batch, n: number } = chunkJobSchema.parse(job.data);
    const taken = await options.take(batch, number);
    if (taken === null) return "not wanted any more";
    const served = options.version(taken.version);
    const { version } = taken;
    if (served === undefined && (await options.isKnown(version))) {
      await job.moveToDelayed(options.clock.now() + otherVersionDelayMs, lock());
      throw new DelayedError();
    }
    const deaths = job.attemptsStarted > 1 ? (await history(jobId)).deaths : 0;
    expectLargeBuffers();
    const inputs = decodeChunk(taken.bytes);
    const rows = rowsOfChunk(inputs);
    // Beside the run; if it fails, the next chunk marks the start, or the batch has ended.
    if (!taken.begun)
      options.begin(batch).catch((error) => options.log.debug("start of a batch not marked", { error }));
    if (served === undefined) {
      const gone = allFailed(rows.count, "version_gone", "The version was removed before this row was run.");
      return finish({ batch, number, version, lock, taken }, inputs, gone);
    }
    const breaker = options.breaker(served);
    const admitted = breaker.admit(jobId);
    if (admitted === "wait") {
      await job.moveToDelayed(options.clock.now() + breaker.waitMs, lock());
      throw new DelayedError();
    }
    const submit: SubmitRows = async (from, to, again) => {
      const outcome = await dispatcher.submit({
        id: jobId,
        runQueue: served.runQueue,
        pack: Buffer.alloc(0),
        bulk: rows.between(from, to),
        rows: to - from,
        owner: "",
        priority: 0,
        signature: "",
        alone: true,
        onBegin(startedAt) {
          const note = { startedAt, attempt: deaths + 1, alone: true, worker: workerId, token: lock() };
          if (job.attemptsStarted > 1) void notebook.note(jobId, note, () => "");
          else notebook.noteLater(jobId, note, () => "");
        },
      });
      if (outcome.kind === "done in bulk") breaker.recordSuccess();
      if (outcome.kind !== "blamed") return outcome;
      const last = to - from === 1 && !again;
      const pays = await breaker.recordDeath({ id: jobId, owner: taken.owner, last });
      // Without a fault of the inputs the chunk is given back; a probe goes on to its end, or it would never have one.
      if (!pays && admitted !== "probe") return { kind: "released" };
      return { ...outcome, detail: blameDetail(outcome.code, served.runQueue.timeoutMs) };
    };
    let part: ChunkPart;
    try {
      part =
        deaths >= deathsToBlame
          ? allFailed(rows.count, "poisoned", "Slot and worker died each time this part of the batch was run.")
          : await runAll(submit, boundsOf(rows, admitted === "probe" ? 1 : options.slots, served.runQueue));
    } catch (fault) {
      if (!(fault instanceof ReleasedError)) throw fault;
      notebook.ended(jobId);
      await notebook.forget(jobId);
      await job.moveToWait(lock());
      throw new WaitingError();
    } finally {
      breaker.abandonProbe(jobId);
    }
    notebook.ended(jobId);
    return finish({ batch, number, version, lock, taken }, inputs, part);
  };

  /** Where inputs that are alike are kept compressed, so are their outputs. */
  async function finish(
    { batch, lock, number, taken, version }: ChunkOutputsOf,
    inputs: BulkChunk,
    part: ChunkPart,
  ): Promise<string> {
    const { failedInputs, outputs } = mergeLines(inputs, part);
    const failed = failedLines(outputs.faults);
    const succeeded = outputs.lines - failed;
    const kept = async (chunk: UnencodedChunk) => {
      const bytes = encodeChunk(chunk);
      return isShrunk(taken.bytes) ? shrinkChunk(bytes) : bytes;
    };
    const chunk = {
      outputs: await kept(outputs),
      failedInputs: failedInputs === null ? null : await kept(failedInputs),
    };
    const outcome = await options.finish({ id: batch, number, token: lock(), ...chunk, succeeded, failed });
    if (outcome !== "written" && outcome !== "ended batch") return outcome;
    options.onStored(taken.owner, chunk.outputs.length + (chunk.failedInputs?.length ?? 0) + chunkOverheadBytes);
    metrics.bulkRows.inc({ model, version, status: "succeeded" }, succeeded);
    metrics.bulkRows.inc({ model, version, status: "failed" }, failed);
    for (const { code, count } of outputs.faults) metrics.failures.inc({ model, version, work: "row", code }, count);
    if (outcome === "ended batch") options.log.info("batch finished", { batch_id: batch, model, version });
    return outcome;
  }

  /**
   * Runs the rows between bounds concurrently. Rejects with a ReleasedError once all have stopped, if one was released.
   */
  async function runAll(submit: SubmitRows, bounds: readonly number[]): Promise<ChunkPart> {
    const runs = bounds.slice(1).map((to, i) => runRows(submit, bounds[i] as number, to, true));
    const parts = await Promise.allSettled(runs);
    for (const part of parts) if (part.status === "rejected") throw part.reason;
    return (await Promise.all(runs)).reduce(joinTwo);
  }

  /** Runs rows [from, to). Rejects with a ReleasedError if they were released. */
  async function runRows(submit: SubmitRows, from: number, to: number, again: boolean): Promise<ChunkPart> {
    if (from === to) return allFailed(0, "", "");
    const outcome = await submit(from, to, again);
    if (outcome.kind === "done in bulk")
      return outcome.table === null ? fromItems(outcome.items) : fromTable(outcome.table);
    if (outcome.kind !== "blamed") throw new ReleasedError();
    metrics.retries.inc({ model, code: outcome.code });
    if (again) return runRows(submit, from, to, false);
    if (to - from === 1) return allFailed(1, outcome.code, outcome.detail);
    const middle = from + ((to - from) >> 1);
    const first = await runRows(submit, from, middle, false);
    return joinTwo(first, await runRows(submit, middle, to, false));
  }
}
