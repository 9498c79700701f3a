import type { ResponseForm } from "./response-form.js";

/** The statuses of a prediction. It moves only forward, and a final status never changes. */
export const predictionStatuses = [
  "queued",
  "scheduled",
  "running",
  "succeeded",
  "failed",
  "canceled",
  "expired",
] as const;

export type PredictionStatus = (typeof predictionStatuses)[number];

export const isFinalStatus = (status: PredictionStatus): boolean =>
  status !== "queued" && status !== "scheduled" && status !== "running";

/** Milliseconds from creation to the first run, of its ONNX run, and from creation to the end; rows of that run. */
export interface Timings {
  queueMs: number;
  inferenceMs: number;
  totalMs: number;
  batchRows: number;
}

/** The content of a prediction's JSON; times in ms since the epoch, `outputJson` as JSON text. */
export interface PredictionView {
  id: string;
  model: string;
  version: string;
  status: PredictionStatus;
  outputJson: string | null;
  error: { code: string; detail: string } | null;
  createdAt: number;
  startedAt: number | null;
  finishedAt: number | null;
  attempts: number;
  cached: boolean;
  deduplicated: boolean;
  /** The caller's metadata as JSON text. */
  metadata: string | undefined;
  retryOf: string | undefined;
  queuePosition: number | null;
  modelDigest: string;
  timings: Timings | null;
}

const time = (ms: number | null): string => (ms === null ? "null" : `"${new Date(ms).toISOString()}"`);
const round = (ms: number): number => Math.round(ms * 1000) / 1000;

/** The prediction as the contract's JSON text, put together by hand for speed. */
export function predictionJson(view: PredictionView): string {
  const { timings } = view;
  const path = `/v1/predictions/${view.id}`;
  return (
    `{"id":"${view.id}","object":"prediction","model":"${view.model}","version":"${view.version}",` +
    `"status":"${view.status}","output":${view.outputJson ?? "null"},` +
    `"error":${view.error === null ? "null" : JSON.stringify(view.error)},` +
    `"created_at":${time(view.createdAt)},"started_at":${time(view.startedAt)},` +
    `"finished_at":${time(view.finishedAt)},` +
    `"attempts":${view.attempts},"cached":${view.cached},"deduplicated":${view.deduplicated},` +
    `"metadata":${view.metadata ?? "{}"},` +
    `"retry_of":${view.retryOf === undefined ? "null" : `"${view.retryOf}"`},"queue_position":${view.queuePosition},` +
    `"model_digest":"${view.modelDigest}",` +
    `"timings":${
      timings === null
        ? "null"
        : `{"queue_ms":${round(timings.queueMs)},"inference_ms":${round(timings.inferenceMs)},` +
          `"total_ms":${round(timings.totalMs)},"batch_rows":${timings.batchRows}}`
    },` +
    `"urls":{"self":"${path}","events":"${path}/events","cancel":"${path}/cancel"}}`
  );
}

/** The place of the output tensors of a prediction that was submitted as tensors. */
export type StoredTensors = { pack: string } | { blob: string; bytes: number };

/**
 * A final prediction as it is stored and published to waiting APIs: an internal line of JSON, then the prediction's
 * JSON, which its owner gets unchanged.
 */
export interface StoredResult {
  owner: string;
  status: PredictionStatus;
  json: string;
  /** Input of a prediction that may be retried: a tensor pack in base64; empty where it is a blob. */
  input?: string;
  /** Bytes of an input that is a blob under the prediction's id. */
  inputBytes?: number;
  /** Rows of the input, where it has more than one. */
  inputRows?: number;
  /** Output of a prediction that was submitted as tensors: a tensor pack in base64, or a blob. */
  tensors?: StoredTensors;
  form?: ResponseForm;
}

/** The beginning of a stored result with tensors in it; the tensors in base64 follow. */
export const storedTensorsStart = '{"p":"';

export function encodeResult({
  form,
  input,
  inputBytes,
  inputRows,
  json,
  owner,
  status,
  tensors,
}: StoredResult): string {
  const place =
    tensors === undefined ? {} : "pack" in tensors ? { p: tensors.pack } : { b: [tensors.blob, tensors.bytes] };
  const head = { ...place, o: owner, s: status, x: input, xb: inputBytes, xn: inputRows, f: form };
  return `${JSON.stringify(head)}\n${json}`;
}

interface Head {
  p?: string;
  b?: [string, number];
  o: string;
  s: PredictionStatus;
  x?: string;
  xb?: number;
  xn?: number;
  f?: ResponseForm;
}

export function decodeResult(text: string): StoredResult {
  const end = text.indexOf("\n");
  const head = JSON.parse(text.slice(0, end)) as Head;
  const result: StoredResult = { owner: head.o, status: head.s, json: text.slice(end + 1) };
  if (head.x !== undefined) result.input = head.x;
  if (head.xb !== undefined) result.inputBytes = head.xb;
  if (head.xn !== undefined) result.inputRows = head.xn;
  if (head.p !== undefined) result.tensors = { pack: head.p };
  if (head.b !== undefined) result.tensors = { blob: head.b[0], bytes: head.b[1] };
  if (head.f !== undefined) result.form = head.f;
  return result;
}
