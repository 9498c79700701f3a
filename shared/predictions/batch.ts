/** The statuses of a batch. It moves only forward, and a final status never changes. */
export const batchStatuses = ["queued", "running", "succeeded", "partial", "failed", "canceled"] as const;

export type BatchStatus = (typeof batchStatuses)[number];

/** The name of every chunk's job, as Bull Board shows it. */
export const chunkJobName = "chunk";

/** Stands between the batch's id and the chunk's number in the id of the chunk's job. */
export const beforeChunk = "-";

/** The id of a chunk's job. */
export const chunkJobId = (batch: string, number: number): string => `${batch}${beforeChunk}${number}`;

/** The batch of a chunk's job. */
export const batchOfChunkJob = (jobId: string): string => jobId.slice(0, jobId.lastIndexOf(beforeChunk));

/** Lua pattern that yields the chunk's number from the id of its job; no other job with a proof has such an id. */
export const chunkNumberPattern = `%${beforeChunk}(%d+)$`;

/**
 * Bytes of a chunk's number of lines, an unsigned integer in little-endian order; those of all chunks stand in a row.
 */
export const lineCountBytes = 4;

/** Chunk jobs of a batch that are in the queue at once. */
export const windowChunks = 64;

/**
 * A batch in its Redis hash; times in ms since the epoch. Its constant parts are kept as JSON text, so that the step
 * that ends the batch can write its whole JSON.
 */
export interface BatchRecord {
  owner: string;
  version: string;
  /** JSON from `{` to before `"status"`, and from after `"eta_ms"` to `}`. */
  head: string;
  tail: string;
  total: number;
  succeeded: number;
  failed: number;
  canceled: number;
  chunks: number;
  createdAt: number;
  startedAt: number | null;
  /** Time of its first run, which may be before it was accepted. */
  begunAt: number | null;
  /** The final batch as JSON, written with its end and never changed. */
  json: string | null;
}

/** The fields of a batch's hash that a `BatchRecord` is read from. */
export const batchFields = [
  "owner",
  "version",
  "head",
  "tail",
  "total",
  "succeeded",
  "failed",
  "canceled",
  "chunks",
  "created",
  "started",
  "begun",
  "json",
] as const;

/** The field with the W3C traceparent of the request that submitted the batch; most have none. */
export const batchTraceField = "tp";

/** Reads the values of `HMGET` for `batchFields`; null for a batch that does not exist. */
export function decodeBatch(values: readonly (string | null)[]): BatchRecord | null {
  const [owner, version, head, tail, total, succeeded, failed, canceled, chunks, created, started, begun, json] =
    values;
  if (owner == null) return null;
  return {
    owner,
    version: version ?? "",
    head: head ?? "",
    tail: tail ?? "",
    total: Number(total),
    succeeded: Number(succeeded),
    failed: Number(failed),
    canceled: Number(canceled ?? 0),
    chunks: Number(chunks),
    createdAt: Number(created),
    startedAt: started == null ? null : Number(started),
    begunAt: (begun ?? started) == null ? null : Number(begun ?? started),
    json: json ?? null,
  };
}

/** The constant parts of a batch, as the two ends of its JSON. */
export function batchFrame(batch: {
  id: string;
  model: string;
  version: string;
  modelDigest: string;
  /** JSON text. */
  metadata: string | undefined;
  retryOf: string | null;
}): { head: string; tail: string } {
  const path = `/v1/batches/${batch.id}`;
  const urls = ["self", "events", "cancel", "results", "retry"].map(
    (name) => `"${name}":"${path}${name === "self" ? "" : `/${name}`}"`,
  );
  return {
    head:
      `{"id":"${batch.id}","object":"batch","model":"${batch.model}","version":"${batch.version}",` +
      `"model_digest":"${batch.modelDigest}",`,
    tail:
      `,"metadata":${batch.metadata ?? "{}"},` +
      `"retry_of":${batch.retryOf === null ? "null" : `"${batch.retryOf}"`},"urls":{${urls.join(",")}}}`,
  };
}

/** The batch as the contract's JSON text at the time `now`. */
export function batchJson(batch: BatchRecord, now: number): string {
  if (batch.json !== null) return batch.json;
  const { begunAt, createdAt, failed, head, startedAt, succeeded, tail, total } = batch;
  const done = succeeded + failed;
  const perMs = begunAt === null || now <= begunAt ? 0 : done / (now - begunAt);
  const eta = perMs === 0 ? "null" : String(Math.round((total - done) / perMs));
  return (
    `${head}"status":"${startedAt === null ? "queued" : "running"}",` +
    `"counts":{"total":${total},"succeeded":${succeeded},"failed":${failed},"canceled":0,"pending":${total - done}},` +
    `"progress":${Math.floor((done / total) * 10_000) / 10_000},` +
    `"created_at":"${new Date(createdAt).toISOString()}",` +
    `"started_at":${startedAt === null ? "null" : `"${new Date(startedAt).toISOString()}"`},"finished_at":null,` +
    `"rows_per_second":${Math.round(perMs * 1_000_000) / 1000},"eta_ms":${eta}${tail}`
  );
}
