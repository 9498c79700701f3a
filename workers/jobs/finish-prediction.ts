import { setTimeout as delay } from "node:timers/promises";
import { mostInStep } from "@millrace/shared/predictions/job.js";
import { metadataText } from "@millrace/shared/predictions/metadata.js";
import {
  type PredictionStatus,
  predictionJson,
  type StoredResult,
  type Timings,
} from "@millrace/shared/predictions/prediction.js";
import type { OnStored } from "@millrace/shared/predictions/storage-counter.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { cancelChannel, type ModelKeys, noticeChannel } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { type Finish, type FinishOutcome, finishPredictions } from "@millrace/shared/scripts/predictions/finish.js";
import type { FailureCode } from "@millrace/shared/service/failure-codes.js";
import { joinCalls } from "@millrace/shared/service/join-turn.js";
import { type Logger, logTogether } from "@millrace/shared/service/log.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { UnrecoverableError } from "../queue/bullmq.js";
import type { Work } from "../runs/work.js";
import type { BlobKeeper } from "./blob-keeper.js";
import type { Ended, EndedVersion, Ending } from "./taken-prediction.js";

const longestCallBytes = 1_000_000;
const retryDelayMs = 250;

export interface FinishOptions {
  writer: ResultWriter;
  blobs: Pick<BlobKeeper, "keep" | "forget">;
  /** Counts an end: version, rows, total time and timings, which are null without success. */
  tally(version: string, rows: number, totalMs: number, timings: Timings | null): void;
  /** Called for each prediction that ended here, once its result is written and its waiters are notified. */
  onFinished(finished: FinishedPrediction): void;
  metrics: WorkerMetrics;
  clock: Clock;
  log: Logger;
}

/** A prediction that ended on this worker. */
export interface FinishedPrediction {
  served: EndedVersion;
  owner: string;
  status: PredictionStatus;
  timings: Timings | null;
  confidence: number;
  /** The input as it was run and its output as JSON; null without success. */
  run: FinishedRun | null;
}

export interface FinishedRun extends Pick<Work, "pack" | "rows" | "signature"> {
  outputJson: string;
}

/**
 * Ends predictions: writes the result, counts it, and resolves to the return value that BullMQ keeps. Without success
 * it rejects with an UnrecoverableError once the result is written, so that the queue page shows the failure.
 */
export function finishPrediction(options: FinishOptions): (taken: Ended, end: Ending) => Promise<string> {
  const { clock, metrics, writer } = options;
  const logFinished = logTogether(options.log, "prediction finished");
  const logFailed = logTogether(options.log, "prediction finished", "warn");

  return async (taken, end) => {
    const { data, id, job, lock, served } = taken;
    if (data.s === 1) await taken.noted;
    const attempts = job.attemptsMade + taken.deaths + (taken.startedAt === null ? 0 : 1);
    const text = endedJson(taken, attempts, end, Math.max(clock.now(), taken.startedAt ?? job.timestamp));
    const result: StoredResult = { owner: data.o, status: end.status, json: text };
    if (end.status !== "succeeded") result.input = data.x;
    if (end.status !== "succeeded" && data.b !== undefined) result.inputBytes = data.b;
    if (end.status !== "succeeded" && data.n !== undefined) result.inputRows = data.n;
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
    if (end.status !== "succeeded" && outcome === "written") throw new UnrecoverableError(end.error?.detail);
    return outcome === "written" ? end.status : outcome;
  };

  function observe(taken: Ended, end: Ending): void {
    const { data, id, served, work } = taken;
    const { confidence, outputJson, pack, status, timings } = end;
    // An output in tensors is not compared with a shadow's, which is JSON.
    const run = outputJson === null || work === null || pack !== undefined ? null : { ...work, outputJson };
    options.onFinished({ served, owner: data.o, status, timings, confidence, run });
    const { model, version } = served;
    metrics.predictions.inc({ model, version, status: end.status });
    if (end.error !== null) metrics.failures.inc({ model, version, work: "prediction", code: end.error.code });
    if (end.status !== "expired")
      options.tally(version, work?.rows ?? 1, Math.max(0, clock.now() - taken.job.timestamp), end.timings);
    if (end.timings !== null) {
      metrics.latency.observe({ model, stage: "queue" }, end.timings.queueMs / 1000);
      metrics.latency.observe({ model, stage: "inference" }, end.timings.inferenceMs / 1000);
      metrics.latency.observe({ model, stage: "total" }, end.timings.totalMs / 1000);
    }
    if (!Number.isNaN(end.confidence)) metrics.confidence.observe({ model }, end.confidence);
    const line = { prediction_id: id, request_id: data.r, model, version, status: end.status };
    if (end.error === null) logFinished(line);
    else logFailed({ ...line, code: end.error.code });
  }
}

/** A prediction as clients read it; `finishedAt` is null while it runs. */
export function endedJson(taken: Ended, attempts: number, end: Ending, finishedAt: number | null): string {
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

/** The cache entry for identical submissions; null where the output is not cached. */
function cacheable(end: Ending, { tensors }: StoredResult, ttlSeconds: number): Finish["cache"] {
  if (end.outputJson === null || ttlSeconds === 0) return null;
  if (tensors === undefined) return { outputJson: end.outputJson, ttlSeconds };
  return "pack" in tensors ? { outputJson: tensors.pack, ttlSeconds, packed: true } : null;
}

export interface ResultWriter {
  /** Makes a prediction final. Resolves once Redis has the result, however long that takes. */
  write(finish: Finish): Promise<FinishOutcome>;
}

/**
 * Writes the results of one model. Results of the same turn of the event loop, as those of one run are, go in one step.
 * When Redis refuses (full, read-only during a failover), the step is tried again until the job's lock has expired,
 * which gives `lost`.
 */
export function createResultWriter(
  redis: RedisClient,
  keys: ModelKeys,
  settings: {
    keyPrefix: string;
    resultTtlSeconds: number;
    workerId: string;
    onStored: OnStored;
    clock: Clock;
    log: Logger;
  },
): ResultWriter {
  const finishSettings = {
    resultTtlSeconds: settings.resultTtlSeconds,
    channelPrefix: noticeChannel(settings.keyPrefix, ""),
    cancelChannel: cancelChannel(settings.keyPrefix),
    workerId: settings.workerId,
    onStored: settings.onStored,
  };

  const write = async (finishes: readonly Finish[]) => {
    for (;;) {
      try {
        return await finishPredictions(redis, keys, finishes, { ...finishSettings, nowMs: settings.clock.now() });
      } catch (error) {
        settings.log.error("results not written, trying again", { error, results: finishes.length });
        await delay(retryDelayMs);
      }
    }
  };
  // The results of one run arrive one after the other, before any of their consequences.
  const joined = joinCalls<Finish, FinishOutcome>(write, {
    schedule: queueMicrotask,
    maxCalls: mostInStep,
    maxBytes: longestCallBytes,
    bytesOf: ({ result }) => result.json.length,
  });
  return { write: joined };
}
