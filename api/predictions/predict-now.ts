import { ServiceError } from "@millrace/shared/service/errors.js";
import { unknownModel } from "../models/unknown-model.js";
import { awaitPrediction } from "./await-end.js";
import { parseSubmission } from "./submission.js";
import { type SubmitDependencies, submitPrediction } from "./submit-prediction.js";

export interface PredictNowDependencies extends SubmitDependencies {
  syncTimeoutMs: number;
}

export interface PredictNowRequest {
  model: string;
  owner: string;
  input: unknown;
  /** Where the input is in the body that complaints point into. */
  inputPointer: string;
  requestId: string;
  idempotencyKey: string | null;
  /** Says that nobody listens any more. */
  gone: AbortSignal;
}

/** A classifier's output. */
export interface Classified {
  label: string;
  confidence: number;
  probabilities: Record<string, number>;
}

/** A prediction that has succeeded. */
export interface Finished {
  id: string;
  version: string;
  output: unknown;
  cached: boolean;
  finishedAt: string;
  /** This input's share of the run that it was part of; 0 where the answer is from the cache. */
  shareMs: number;
  /** The run that it was part of. */
  inferenceMs: number;
}

/**
 * One prediction through the same queue as all others, waited for: the way of the paths that answer with the result
 * itself. Throws `no_worker`, `not_in_time` (with a Location), `inference_failed`, or `invalid_input`.
 */
export async function predictNow(deps: PredictNowDependencies, request: PredictNowRequest): Promise<Finished> {
  const { gone, idempotencyKey, inputPointer, model, owner, requestId } = request;
  await requireWorker(deps, model);
  const deadline = performance.now() + deps.syncTimeoutMs;
  // The input is put in its place afterwards, because a body's rules are not for it.
  const submission = { ...parseSubmission({ input: null }), input: request.input };
  const submitted = await submitPrediction(deps, {
    model,
    owner,
    submission,
    waitMs: deps.syncTimeoutMs,
    requestId,
    traceparent: undefined,
    idempotencyKey,
    inputPointer,
  });
  const { final, id, waiter } = submitted;
  const leftMs = Math.max(1, deadline - performance.now());
  const end = final ? submitted : await awaitPrediction(deps, owner, id, leftMs, gone, waiter);
  if (!end.final) {
    throw new ServiceError("not_in_time", "The prediction is not done yet. It goes on; Location leads to it.", {
      headers: { Location: `/v1/predictions/${id}` },
    });
  }
  return finishedOf(id, end.json, inputPointer);
}

/** Throws `model_not_found`, or `no_worker` where none that lives serves the version that a submission would get. */
export async function requireWorker(deps: SubmitDependencies, name: string): Promise<void> {
  const isServed = async () => {
    const model = await deps.directory.find(name);
    if (model === null) throw unknownModel(name, deps.directory.refused());
    return (model.workers.get(model.defaultVersion) ?? 0) > 0;
  };
  if (await isServed()) return;
  // What is known may be two seconds old.
  await deps.directory.refresh();
  if (await isServed()) return;
  throw new ServiceError("no_worker", "No living worker serves this model.", { retryAfterSeconds: 2 });
}

interface PredictionBody {
  version: string;
  status: string;
  output: unknown;
  error: { code: string; detail: string } | null;
  cached: boolean;
  finished_at: string;
  timings: { inference_ms: number; batch_rows: number } | null;
}

function finishedOf(id: string, json: string, inputPointer: string): Finished {
  const { cached, error, finished_at, output, status, timings, version } = JSON.parse(json) as PredictionBody;
  if (status === "canceled") throw new ServiceError("state_conflict", "The prediction was canceled.");
  if (status !== "succeeded") {
    const detail = error?.detail ?? status;
    if (error?.code !== "invalid_input") throw new ServiceError("inference_failed", detail);
    throw new ServiceError("invalid_input", detail, { complaints: [{ detail, pointer: inputPointer }] });
  }
  const inferenceMs = timings?.inference_ms ?? 0;
  const shareMs = inferenceMs / Math.max(1, timings?.batch_rows ?? 1);
  return { id, version, output, cached, finishedAt: finished_at, shareMs, inferenceMs };
}
