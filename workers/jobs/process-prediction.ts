import { rowsOf } from "@millrace/shared/packing/pack-tensors.js";
import { type PredictionJob, predictionJobSchema } from "@millrace/shared/predictions/job.js";
import { metadataText } from "@millrace/shared/predictions/metadata.js";
import {
  type PredictionStatus,
  predictionJson,
  type StoredResult,
  type Timings,
} from "@millrace/shared/predictions/prediction.js";
import type { Finish } from "@millrace/shared/scripts/predictions/finish.js";
import type { JobHistory } from "@millrace/shared/scripts/predictions/run-notes.js";
import type { FailureCode } from "@millrace/shared/service/failure-codes.js";
import { type Logger, logTogether } from "@millrace/shared/service/log.js";
import { unpackTensors, wantsTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { DelayedError, UnrecoverableError, WaitingError } from "bullmq";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { AttemptFailedError } from "../queue/stocking-worker.js";
import type { Dispatcher, Lane, Outcome, Work } from "../runs/dispatcher.js";
import type { BlobKeeper } from "./blob-keeper.js";
import type { JobBreaker } from "./breaker.js";
import type { ResultWriter } from "./result-writer.js";
import type { RunNotebook } from "./run-notebook.js";

/** A version that this worker has in its slots. */
export interface ServedVersion {
  model: string;
  version: string;
  digest: string;
  /** All inputs are one row of the same shape once prepared, so that nothing needs to be compared to join them. */
  uniform: boolean;
  attempts: number;
  cacheTtlSeconds: number;
  lane: Lane;
}

/** What of a BullMQ job is used here; a test can call the processor with a plain object. */
export interface TakenJob {
  id?: string | undefined;
  data: unknown;
  timestamp: number;
  /** Its priority in BullMQ is 0; see `fair-queue.lua`. */
  opts?: { priority?: number | undefined };
  /** Attempts that failed before this one. */
  attemptsMade: number;
  /** Times that it was taken, this one included. */
  attemptsStarted: number;
  endedEarly: boolean;
  moveToDelayed(timestamp: number, token?: string): Promise<unknown>;
  moveToWait(token?: string): Promise<unknown>;
}

export interface ProcessPredictionOptions {
  model: string;
  workerId: string;
  version(name: string): ServedVersion | undefined;
  /** Whether a version that is not here may be on another worker, or come back. */
  isKnown(version: string): Promise<boolean>;
  breaker(served: ServedVersion): JobBreaker;
  dispatcher: Pick<Dispatcher, "submit">;
  writer: ResultWriter;
  notebook: RunNotebook;
  history(id: string): Promise<JobHistory>;
  blobs: BlobKeeper;
  /** Counts what becomes of a prediction: its version, rows and timings, null for one that did not succeed. */
  tally(version: string, rows: number, totalMs: number, timings: Timings | null): void;
  /** Told of each prediction that ended here, once its result is written and whoever waits is told. */
  onFinished(finished: FinishedPrediction): void;
  metrics: WorkerMetrics;
  log: Logger;
}

/** A prediction that has ended on this worker. */
export interface FinishedPrediction {
  served: EndedVersion;
  owner: string;
  status: PredictionStatus;
  timings: Timings | null;
  confidence: number;
  /** The input as it was run and its output as JSON; null where it did not succeed. */
  run: FinishedRun | null;
}

export interface FinishedRun extends Pick<Work, "pack" | "rows" | "signature"> {
  outputJson: string;
}

/** A version as far as an end tells of it; it need not be here any more. */
export type EndedVersion = Pick<ServedVersion, "model" | "version" | "digest" | "cacheTtlSeconds">;

/**
 * How often a job may be running alone while slot and worker die together before it counts as the cause. It is more
 * than an attempt, because whoever kills a worker from outside kills whatever happens to run.
 */
export const deathsToBlame = 10;
/** How long a job waits for a worker that has its version, when this one has not. */
export const otherVersionDelayMs = 1000;

const endedEarly = "ended before it was taken";
const unreadable = "unreadable job data";

/** Whether a job that ended with these words has a result. */
export const hasResult = (words: string): boolean => words !== endedEarly && !words.startsWith(unreadable);

/** A prediction as it is taken: what the job says, and what is known of it by now. */
interface Taken {
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
type Ended = Omit<Taken, "served"> & { served: EndedVersion };

type EndCode = FailureCode | "expired";

interface Ending {
  status: PredictionStatus;
  outputJson: string | null;
  /** The output as tensors, where that is wanted. */
  pack?: Buffer | undefined;
  error: { code: EndCode; detail: string } | null;
  timings: Timings | null;
  confidence: number;
}

/**
 * The processor of a prediction's job. The result is written before BullMQ hears of the end, so that a job which is
 * handed out twice finds its result and is not run again; what BullMQ keeps is only a word about it.
 */
export function processPrediction(options: ProcessPredictionOptions) {
  const { dispatcher, history, metrics, notebook, workerId, writer } = options;
  const logFinished = logTogether(options.log, "prediction finished");

  /** `lock`: the token that counts by the time of the end, which may be a later one. */
  return async (job: TakenJob, token: string, lock = () => token): Promise<string> => {
    if (job.endedEarly) return endedEarly;
    const id = job.id as string;
    const parsed = predictionJobSchema.safeParse(job.data);
    if (!parsed.success) throw new UnrecoverableError(`${unreadable}: ${parsed.error.message}`);
    const data = parsed.data;
    const served = options.version(data.ver);
    const begun = { job, id, lock, data, work: null, startedAt: null, deaths: 0, noted: Promise.resolve() };
    if (served === undefined) {
      if (!(await options.isKnown(data.ver))) {
        const gone = { model: options.model, version: data.ver, digest: "", cacheTtlSeconds: 0 };
        return finish({ ...begun, served: gone }, versionGone);
      }
      await job.moveToDelayed(Date.now() + otherVersionDelayMs, lock());
      throw new DelayedError();
    }
    const taken: Taken = { ...begun, served };
    const breaker = options.breaker(served);
    const admitted = breaker.admit(id);
    if (admitted === "wait") {
      await job.moveToDelayed(Date.now() + breaker.waitMs, lock());
      throw new DelayedError();
    }
    try {
      return await runAdmitted(taken, admitted === "probe");
    } finally {
      breaker.leftOff(id);
    }
  };

  async function runAdmitted(taken: Taken, isProbe: boolean): Promise<string> {
    const { data, id, job } = taken;
    let begun = job.attemptsMade > 0;
    if (job.attemptsStarted > 1) {
      const past = await history(id);
      if (past.final) return "already final";
      taken.deaths = past.deaths;
      if (past.deaths >= deathsToBlame) {
        return finish(taken, failure("failed", "poisoned", "whatever ran this input died, each time it was tried"));
      }
      begun ||= past.diedRunning || past.deaths > 0;
    }
    // What was begun in time is in time, whatever became of that run.
    const expiresAt = begun ? undefined : data.e;
    const alone = begun || isProbe;
    if (expiresAt !== undefined && expiresAt <= Date.now()) return finish(taken, expired);
    if (data.b === undefined) return runAndFinish(taken, Buffer.from(data.x, "base64"), alone, expiresAt);
    const room = await options.blobs.makeRoom(data.b);
    try {
      const pack = await options.blobs.read(id, data.b);
      if (pack === null)
        return await finish(taken, failure("failed", "input_lost", "its input is gone from the store"));
      return await runAndFinish(taken, pack, alone, expiresAt);
    } finally {
      room.release();
    }
  }

  async function runAndFinish(
    taken: Taken,
    pack: Buffer,
    alone: boolean,
    expiresAt: number | undefined,
  ): Promise<string> {
    const { id, job, lock, served } = taken;
    const outcome = await run(taken, pack, alone, expiresAt);
    notebook.ended(id);
    if (outcome.kind === "done") options.breaker(served).lived();
    if (outcome.kind === "blamed" && !(await isToBlame(taken))) {
      await notebook.forget(id);
      // Behind what waits, because the one that is tried first should not be one that has died.
      await job.moveToDelayed(Date.now() + options.breaker(served).waitMs, lock());
      throw new DelayedError();
    }
    if (outcome.kind === "released") {
      await notebook.forget(id);
      await job.moveToWait(lock());
      throw new WaitingError();
    }
    if (outcome.kind === "canceled") {
      await notebook.forget(id);
      return "ended while it ran";
    }
    if (outcome.kind === "expired") return finish(taken, expired);
    if (outcome.kind === "blamed") return retryOrFail(taken, outcome.code);
    return finish(taken, ending(taken, outcome as Extract<Outcome, { kind: "done" }>));
  }

  function run(taken: Taken, pack: Buffer, alone: boolean, expiresAt: number | undefined): Promise<Outcome> {
    const { data, id, job, served } = taken;
    const tensors = served.uniform && !wantsTensors(pack) ? null : unpackTensors(pack);
    const attempt = job.attemptsMade + taken.deaths + 1;
    const signature = tensors?.map(({ dtype, shape }) => `${dtype}[${shape.slice(1)}]${shape.length}`).join() ?? "";
    const work = { pack, rows: tensors === null ? 1 : rowsOf(tensors), signature };
    taken.work = work;
    return dispatcher.submit({
      ...work,
      id,
      lane: served.lane,
      owner: data.o,
      priority: job.opts?.priority ?? 0,
      alone,
      expiresAt,
      onBegin(startedAt, isAlone) {
        taken.startedAt ??= startedAt;
        const note = { startedAt, attempt, alone: isAlone, worker: workerId, token: taken.lock() };
        const text = () => json(taken, attempt, { ...versionGone, status: "running", error: null }, null);
        if (job.attemptsStarted > 1 || data.s === 1) taken.noted = notebook.note(id, note, text);
        else notebook.noteLater(id, note, text);
      },
    });
  }

  /** Whether it is the input that killed the slot, as far as can be told, and not the version. */
  function isToBlame({ data, id, job, served }: Taken): Promise<boolean> {
    return options.breaker(served).died({ id, owner: data.o, last: job.attemptsMade + 1 >= served.attempts });
  }

  /** A slot died or was late with nothing but this job in it, so the job pays one attempt. */
  async function retryOrFail(taken: Taken, code: "timeout" | "poisoned"): Promise<string> {
    const { id, job, served } = taken;
    const detail =
      code === "timeout"
        ? `the run took longer than the model's ${served.lane.timeoutMs} ms`
        : "the process that ran this input died";
    if (job.attemptsMade + 1 < served.attempts) {
      await notebook.forget(id);
      metrics.retries.inc({ model: served.model, code });
      throw new AttemptFailedError(`${code}: ${detail}`);
    }
    return finish(taken, failure("failed", code, detail));
  }

  function ending(taken: Taken, { item }: Extract<Outcome, { kind: "done" }>): Ending {
    if (!item.ok) return failure("failed", item.refused ? "invalid_input" : "inference_failed", item.text);
    const now = Date.now();
    const { timestamp } = taken.job;
    return {
      status: "succeeded",
      outputJson: item.text === "" ? null : item.text,
      pack: item.pack,
      error: null,
      confidence: item.confidence,
      timings: {
        queueMs: (taken.startedAt as number) - timestamp,
        inferenceMs: item.inferenceMs,
        totalMs: now - timestamp,
        batchRows: item.batchRows,
      },
    };
  }

  async function finish(taken: Ended, end: Ending): Promise<string> {
    const { data, id, job, lock, served } = taken;
    if (data.s === 1) await taken.noted;
    const attempts = job.attemptsMade + taken.deaths + (taken.startedAt === null ? 0 : 1);
    const text = json(taken, attempts, end, Date.now());
    const result: StoredResult = { owner: data.o, status: end.status, json: text };
    if (end.status !== "succeeded") result.input = data.x;
    if (end.status !== "succeeded" && data.b !== undefined) result.inputBytes = data.b;
    if (data.f !== undefined) result.form = data.f;
    if (end.pack !== undefined) result.tensors = await options.blobs.keep(end.pack);
    const finish: Finish = {
      id,
      by: {
        get token() {
          return lock();
        },
      },
      result,
      dedup: data.d ?? null,
      cache: data.d === undefined ? null : cacheable(end, result, served.cacheTtlSeconds),
      started: taken.startedAt !== null,
    };
    if (end.status === "failed") finish.failure = end.error?.code as FailureCode;
    if (data.b !== undefined) finish.blob = end.status === "succeeded" ? "drop" : "keep";
    const outcome = await writer.write(finish);
    if (outcome !== "written") await options.blobs.forget(result.tensors);
    if (outcome === "written") observe(taken, end);
    // BullMQ is told of a failure too, so that the queue page shows it under that word.
    if (end.status !== "succeeded" && outcome === "written") throw new UnrecoverableError(end.error?.detail);
    return outcome === "written" ? end.status : outcome;
  }

  function json(taken: Ended, attempts: number, end: Ending, finishedAt: number | null): string {
    const { data, id, job, served } = taken;
    return predictionJson({
      id,
      model: served.model,
      version: served.version,
      status: end.status,
      outputJson: end.outputJson,
      error: end.error,
      createdAt: job.timestamp,
      startedAt: taken.startedAt,
      finishedAt,
      attempts,
      cached: false,
      deduplicated: false,
      metadata: metadataText(data),
      retryOf: data.ro,
      queuePosition: null,
      modelDigest: served.digest,
      timings: end.timings,
    });
  }

  function observe(taken: Ended, end: Ending): void {
    const { data, id, served, work } = taken;
    const { confidence, outputJson, pack, status, timings } = end;
    // An answer in tensors is not compared with a shadow's, which is JSON.
    const run = outputJson === null || work === null || pack !== undefined ? null : { ...work, outputJson };
    options.onFinished({ served, owner: data.o, status, timings, confidence, run });
    const { model, version } = served;
    metrics.predictions.inc({ model, version, status: end.status });
    if (end.status !== "expired")
      options.tally(version, work?.rows ?? 1, Date.now() - taken.job.timestamp, end.timings);
    if (end.timings !== null) {
      metrics.latency.observe({ model, stage: "queue" }, end.timings.queueMs / 1000);
      metrics.latency.observe({ model, stage: "inference" }, end.timings.inferenceMs / 1000);
      metrics.latency.observe({ model, stage: "total" }, end.timings.totalMs / 1000);
    }
    if (!Number.isNaN(end.confidence)) metrics.confidence.observe({ model }, end.confidence);
    const line = { prediction_id: id, request_id: data.r, model, version, status: end.status };
    if (end.error === null) logFinished(line);
    else options.log.warn("prediction finished", { ...line, code: end.error.code });
  }
}

/** What identical submissions are to be answered with; null for what is not to be kept for them. */
function cacheable(end: Ending, { tensors }: StoredResult, ttlSeconds: number): Finish["cache"] {
  if (end.outputJson === null || ttlSeconds === 0) return null;
  if (tensors === undefined) return { outputJson: end.outputJson, ttlSeconds };
  return "pack" in tensors ? { outputJson: tensors.pack, ttlSeconds, packed: true } : null;
}

const failure = (status: PredictionStatus, code: EndCode, detail: string): Ending => ({
  status,
  outputJson: null,
  error: { code, detail },
  timings: null,
  confidence: Number.NaN,
});

const versionGone = failure("failed", "version_gone", "the version was taken away before this was run");
const expired = failure("expired", "expired", "it was not started in time");
