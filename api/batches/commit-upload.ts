import { type BatchRecord, batchFrame, batchTraceField } from "@millrace/shared/predictions/batch.js";
import { canonical } from "@millrace/shared/predictions/canonical-json.js";
import type { ConfirmedWrite } from "@millrace/shared/redis/confirm-writes.js";
import { digestOf } from "@millrace/shared/redis/digest.js";
import { noticeChannel } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { commitBatch } from "@millrace/shared/scripts/batches/commit-batch.js";
import type { AcceptSettings } from "@millrace/shared/scripts/queue/accept.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { type KnownModel, versionOf } from "../models/model-directory.js";
import { usedForAnother } from "../predictions/submission.js";
import { type BatchOptions, mostFailedRows } from "./batch-options.js";

export interface CommitDependencies {
  confirmed: ConfirmedWrite;
  log: Logger;
  resultTtlSeconds: number;
  keyPrefix: string;
  acceptSettings: AcceptSettings;
  clock: Clock;
}

/** An upload that has arrived as a whole. */
export interface CompleteUpload {
  model: KnownModel;
  owner: string;
  requestId: string;
  idempotencyKey: string | null;
  id: string;
  version: string;
  options: BatchOptions;
  metadata: string | undefined;
  /** Of the body, and of its inputs in whatever order the members of their objects stand. */
  digest: string;
  sortedDigest: string;
  followerJson: string | null;
  chunks: number;
  lines: number;
  /** Bytes of its chunks as they were staged. */
  bytes: number;
  /** W3C traceparent of the request. */
  traceparent: string | undefined;
}

/** Outcome of an upload: a new batch, or the one that the same key and body made before. */
export interface TakenBatch {
  id: string;
  /** A new batch as it was when it was accepted. */
  batch: BatchRecord | null;
  replayed: boolean;
}

/**
 * Makes staged chunks a batch, in one step. Throws `idempotency_mismatch`, and `redis_unavailable` where the chunks
 * have expired.
 */
export async function commitUpload(deps: CommitDependencies, upload: CompleteUpload): Promise<TakenBatch> {
  const { bytes, chunks, digest, followerJson, id, idempotencyKey, lines, metadata, model } = upload;
  const { options, owner, requestId, sortedDigest, version } = upload;
  const { announcement } = versionOf(model, version);
  const { output } = announcement.manifest;
  const modelDigest = announcement.digest;
  const inOrder = { ...options, ...(options.metadata && { metadata: canonical(options.metadata) }) };
  const commit = {
    id,
    owner,
    nowMs: deps.clock.now(),
    chunks,
    lines,
    bytes,
    priority: options.priority,
    mostFailed: mostFailedRows(options, lines),
    resultTtlMs: deps.resultTtlSeconds * 1000,
    idempotency:
      idempotencyKey === null
        ? null
        : {
            key: idempotencyKey,
            bodyHash: digestOf("batch", digest, JSON.stringify(options)),
            sortedHash: digestOf("batch", sortedDigest, JSON.stringify(inOrder)),
          },
    followerJson,
    channelPrefix: noticeChannel(deps.keyPrefix, ""),
    version,
    weight: deps.acceptSettings.weightOf?.(owner) ?? 1,
    fixed: {
      ...batchFrame({ id, model: model.name, version, modelDigest, metadata, retryOf: null }),
      ...(output.head === "classifier" && { labels: JSON.stringify(output.labels) }),
      // For its webhook, on any worker.
      ...(upload.traceparent !== undefined && { [batchTraceField]: upload.traceparent }),
    },
  };
  const outcome = await deps.confirmed(model.keys, (redis) => commitBatch(redis, model.keys, commit));
  if (outcome.kind === "mismatch") {
    throw usedForAnother();
  }
  if (outcome.kind === "lost") {
    throw new ServiceError("redis_unavailable", "The upload expired before it was complete. Send it again.", {
      retryAfterSeconds: 1,
    });
  }
  if (outcome.kind === "accepted") {
    deps.log.info("batch accepted", { request_id: requestId, model: model.name, batch_id: id, rows: lines });
    if (outcome.batch?.json != null) deps.log.info("batch finished", { batch_id: id, model: model.name, version });
  }
  return { id: outcome.id, batch: outcome.batch, replayed: outcome.kind === "replayed" };
}
