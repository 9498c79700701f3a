import { type BatchRecord, decodeBatch } from "../../predictions/batch.js";
import { webhookBodyStart } from "../../predictions/delivery.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { number, optional, text, unnamed } from "../lua/fields.js";
import { type Idempotency, idempotencyHashes } from "../queue/idempotency.js";

/**
 * Batches, which rest on these rules:
 * - Chunks are staged while the body arrives, and run by then, too; see `stage-chunks.ts`. One step makes them a batch.
 * - From then on a window of chunk jobs is in the model's queue of chunks. The step that writes a chunk's outputs, once
 *   and fenced by its job's lock, counts them, drops its inputs, adds the next job and ends the batch with the last
 *   one.
 * - A cancel is such an end too, and the step that accepts a batch that is done by then. An end never changes: what is
 *   done later is dropped.
 * - No step's cost grows with the batch.
 */
const script = defineScript({
  name: "millraceCommitBatch",
  file: "batches/commit-batch",
  keys: {
    batch: text("The batch."),
    chunks: text("Inputs by chunk."),
    lines: text("Lines of each chunk."),
    results: text("Outputs by chunk."),
    failed: text("Inputs that failed by chunk."),
    owned: text("The owner's batches."),
    idempotency: text("The owner's idempotency key: hash of the body, and outcome."),
  },
  fields: {
    id: text("The batch's id."),
    nowMs: number("Time of acceptance."),
    base: text("Prefix of the model's own keys."),
    queue: text("Prefix of the keys of the model's queue of chunks."),
    chunks: number("Chunks of the batch."),
    lines: number("Lines of the batch."),
    priority: number("0 in order of arrival; 1 (first) to 1000 (last) behind those."),
    resultTtlMs: number("The result time."),
    bodyHashes: optional(text("Hashes of the body, where there is an idempotency key.")),
    follower: optional(text("The follower to call, as JSON.")),
    webhookQueue: text("Prefix of the keys of the model's queue of deliveries."),
    noticeChannel: text("Prefix of the channels on which APIs are told; an API's id follows."),
    bodyStart: text("The body of the webhook up to its data."),
    version: text("The version that runs it."),
    owner: text("The owner."),
    weight: number("The owner's weight in the queue."),
  },
  each: { field: unnamed(text("A fixed field of the batch.")), value: unnamed(text("Its value.")) },
});

export interface BatchCommit {
  id: string;
  owner: string;
  nowMs: number;
  chunks: number;
  lines: number;
  /** 0 in order of arrival; 1 (first) to 1000 (last) behind those. */
  priority: number;
  resultTtlMs: number;
  channelPrefix: string;
  idempotency: Idempotency | null;
  followerJson: string | null;
  version: string;
  /** How much of the queue its owner has against others. */
  weight: number;
  /** `head` and `tail` of a `BatchRecord`, and the `labels` of a classifier as JSON. */
  fixed: Readonly<Record<string, string>>;
}

/**
 * Makes what was staged a batch, and ends it where all of it has run by then. `replayed`: this key was used for the
 * same body before, `id` is that batch; `mismatch`: for another body; `lost`: what was staged has expired, or ran as
 * another version.
 */
export async function commitBatch(
  redis: RedisClient,
  keys: ModelKeys,
  commit: BatchCommit,
): Promise<{ kind: "accepted" | "replayed" | "mismatch" | "lost"; id: string; batch: BatchRecord | null }> {
  const { chunks, fixed, followerJson, id, idempotency, lines, nowMs, owner, priority, resultTtlMs } = commit;
  const [kind, target, values] = (await script.run(redis, {
    keys: {
      batch: keys.batch(id),
      chunks: keys.batchChunks(id),
      lines: keys.batchLines(id),
      results: keys.batchResults(id),
      failed: keys.batchFailed(id),
      owned: keys.ownedBatches(owner),
      idempotency: keys.idempotency(owner, idempotency?.key ?? ""),
    },
    fields: {
      id,
      nowMs,
      base: keys.base,
      queue: keys.batchQueue,
      chunks,
      lines,
      priority,
      resultTtlMs,
      bodyHashes: idempotency === null ? null : idempotencyHashes(idempotency),
      follower: followerJson,
      webhookQueue: keys.webhookQueue,
      noticeChannel: commit.channelPrefix,
      bodyStart: webhookBodyStart("batch.completed", nowMs),
      version: commit.version,
      owner,
      weight: commit.weight,
    },
    each: Object.entries(fixed).map(([field, value]) => ({ field, value })),
  })) as ["accepted" | "replayed" | "mismatch" | "lost", string, (string | null)[]?];
  return { kind, id: target, batch: values === undefined ? null : decodeBatch(values) };
}
