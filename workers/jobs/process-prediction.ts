import { rowsOf } from "@millrace/shared/packing/pack-tensors.js";
import { predictionJobSchema } from "@millrace/shared/predictions/job.js";
import type { JobHistory } from "@millrace/shared/scripts/predictions/run-notes.js";
import { unpackTensors, wantsTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { DelayedError, UnrecoverableError, WaitingError } from "../queue/bullmq.js";
import { AttemptFailedError } from "../queue/stocking-worker.js";
import type { Dispatcher } from "../runs/dispatcher.js";
import { type BlameCode, blameDetail, type Outcome } from "../runs/work.js";
import type { BlobKeeper } from "./blob-keeper.js";
import { endedJson, type FinishOptions, finishPrediction } from "./finish-prediction.js";
import type { JobBreaker } from "./job-breaker.js";
import type { RunNotebook } from "./run-notebook.js";
import {
  deathsToBlame,
  type Ending,
  expired,
  failure,
  otherVersionDelayMs,
  type ServedVersion,
  type Taken,
  type TakenJob,
  versionGone,
} from "./taken-prediction.js";

export interface ProcessPredictionOptions extends FinishOptions {
  model: string;
  workerId: string;
  version(name: string): ServedVersion | undefined;
  /** Whether a version that is not served here is known, so that another worker may serve it. */
  isKnown(version: string): Promise<boolean>;
  breaker(served: ServedVersion): JobBreaker;
  dispatcher: Pick<Dispatcher, "submit">;
  notebook: RunNotebook;
  history(id: string): Promise<JobHistory>;
  blobs: BlobKeeper;
}

const endedEarly = "ended before it was taken";
const unreadable = "unreadable job data";

/** Whether a job's return value or failure means that its prediction has a result. */
export const hasResult = (words: string): boolean => words !== endedEarly && !words.startsWith(unreadable);

/**
 * The processor of a prediction's job. The result is written before the job completes, so that a job that is handed out
 * twice finds its result and is not run again. BullMQ keeps only the status.
 */
export function processPrediction(options: ProcessPredictionOptions) {
  const { clock, dispatcher, history, metrics, notebook, workerId } = options;
  const finish = finishPrediction(options);

  /** `lock`: returns the token that counts at the end, which may be a later one than `token`. */
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
      await job.moveToDelayed(clock.now() + otherVersionDelayMs, lock());
      throw new DelayedError();
    }
    const taken: Taken = { ...begun, served };
    const breaker = options.breaker(served);
    const admitted = breaker.admit(id);
    if (admitted === "wait") {
      await job.moveToDelayed(clock.now() + breaker.waitMs, lock());
      throw new DelayedError();
    }
    try {
      return await runAdmitted(taken, admitted === "probe");
    } finally {
      breaker.abandonProbe(id);
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
        return finish(taken, failure("failed", "poisoned", "Slot and worker died each time this input was run."));
      }
      begun ||= past.diedRunning || past.deaths > 0;
    }
    // A prediction that began in time is in time, with any outcome of that run.
    const expiresAt = begun ? undefined : data.e;
    const alone = begun || isProbe;
    if (expiresAt !== undefined && expiresAt <= clock.now()) return finish(taken, expired);
    if (data.b === undefined) return runAndFinish(taken, Buffer.from(data.x, "base64"), alone, expiresAt);
    const room = await options.blobs.makeRoom(data.b);
    try {
      const pack = await options.blobs.read(id, data.b);
      if (pack === null)
        return await finish(taken, failure("failed", "input_lost", "The input is no longer in Redis."));
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
    if (outcome.kind === "done") options.breaker(served).recordSuccess();
    if (outcome.kind === "blamed" && !(await isToBlame(taken))) {
      await notebook.forget(id);
      // Behind the waiting jobs, because the next one tried should not be one that has died.
      await job.moveToDelayed(clock.now() + options.breaker(served).waitMs, lock());
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
      runQueue: served.runQueue,
      owner: data.o,
      priority: job.opts?.priority ?? 0,
      alone,
      expiresAt,
      onBegin(startedAt, isAlone) {
        // Two processes measure the time of the store a little differently.
        taken.startedAt ??= Math.max(startedAt, job.timestamp);
        const note = { startedAt: taken.startedAt, attempt, alone: isAlone, worker: workerId, token: taken.lock() };
        const text = () => endedJson(taken, attempt, { ...versionGone, status: "running", error: null }, null);
        if (job.attemptsStarted > 1 || data.s === 1) taken.noted = notebook.note(id, note, text);
        else notebook.noteLater(id, note, text);
      },
    });
  }

  /** Whether the input, and not the version, killed the slot, as far as can be told. */
  function isToBlame({ data, id, job, served }: Taken): Promise<boolean> {
    return options.breaker(served).recordDeath({ id, owner: data.o, last: job.attemptsMade + 1 >= served.attempts });
  }

  /** The slot died or timed out with only this job in it, so the job pays one attempt. */
  async function retryOrFail(taken: Taken, code: BlameCode): Promise<string> {
    const { id, job, served } = taken;
    const detail = blameDetail(code, served.runQueue.timeoutMs);
    if (job.attemptsMade + 1 < served.attempts) {
      await notebook.forget(id);
      metrics.retries.inc({ model: served.model, code });
      throw new AttemptFailedError(`${code}: ${detail}`);
    }
    return finish(taken, failure("failed", code, detail));
  }

  function ending(taken: Taken, { item }: Extract<Outcome, { kind: "done" }>): Ending {
    if (!item.ok) return failure("failed", item.refused ? "invalid_input" : "inference_failed", item.text);
    const { timestamp } = taken.job;
    const now = Math.max(clock.now(), taken.startedAt ?? timestamp);
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
}
