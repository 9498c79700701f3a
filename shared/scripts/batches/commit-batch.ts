import { type BatchRecord, decodeBatch } from "../../predictions/batch.js";
import { webhookBodyStart } from "../../predictions/delivery.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, number, optional, text, unnamed } from "../lua/fields.js";
import { type Idempotency, idempotencyHashes } from "../queue/idempotency.js";

/**
 * Rules of batches:
 * - Chunks are staged, and may already run, while the body arrives; see `stage-chunks.ts`. One step makes them a batch.
 * - From then on a window of chunk jobs is in the model's queue of chunks. The step that writes a chunk's outputs does
 *   so once, fenced by its job's lock. It counts them, drops the chunk's inputs, adds the next job, and ends the batch
 *   with the last chunk.
 * - A cancel ends the batch too, and so does the acceptance of a batch whose chunks have all run, and a failed row more
 *   than the batch allows. An end never changes: later outputs are dropped.
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
    failed: text("Failed inputs by chunk."),
    owned: text("The owner's batches."),
    idempotency: text("The owner's idempotency key, with hash of the body and outcome."),
  },
  fields: {
    id: text("The batch's id."),
    nowMs: number("Time of acceptance."),
    base: text("Prefix of the model's own keys."),
    queue: text("Prefix of the keys of the model's queue of chunks."),
    chunks: number("Chunks of the batch."),
    lines: number("Lines of the batch."),
    bytes: number("Bytes of its chunks as they were staged."),
    priority: number("0: in order of arrival; 1 (highest) to 1000 (lowest): behind 0."),
    mostFailed: optional(number("Rows that may fail before the batch ends.")),
    resultTtlMs: number("The result time."),
    bodyHashes: optional(text("Hashes of the body, with an idempotency key.")),
    follower: optional(text("The follower to call, as JSON.")),
    webhookQueue: text("Prefix of the keys of the model's queue of deliveries."),
    noticeChannel: text("Prefix of the APIs' notice channels; an API's id follows."),
    bodyStart: text("The body of the webhook up to its data."),
    version: text("The version for its runs."),
    owner: text("The owner."),
    weight: number("The owner's weight in the queue."),
  },
  each: { field: unnamed(text("A fixed field of the batch.")), value: unnamed(text("Its value.")) },
  answer: answers<[kind: CommitKind, id: string, batch?: (string | null)[]]>(
    "What became of it, its id or that of the one before, and its fields.",
  ),
});

export interface BatchCommit {
  id: string;
  owner: string;
  nowMs: number;
  chunks: number;
  lines: number;
  /** Bytes of its chunks as they were staged. */
  bytes: number;
  /** 0: in order of arrival; 1 (highest) to 1000 (lowest): behind 0. */
  priority: number;
  /** Rows that may fail before the batch ends; null: all. */
  mostFailed: number | null;
  resultTtlMs: number;
  channelPrefix: string;
  idempotency: Idempotency | null;
  followerJson: string | null;
  version: string;
  /** The owner's weight in the queue. */
  weight: number;
  /** The `head` and `tail` of a `BatchRecord`, and a classifier's `labels` as JSON. */
  fixed: Readonly<Record<string, string>>;
}

/**
 * `replayed`: this key was used before for the same body, and the id is that batch's; `mismatch`: for another body;
 * `lost`: the staged chunks have expired, or ran as another version.
 */
export type CommitKind = "accepted" | "replayed" | "mismatch" | "lost";

/** Makes staged chunks a batch, and ends it if all of them have run. */
export async function commitBatch(
  redis: RedisClient,
  keys: ModelKeys,
  commit: BatchCommit,
): Promise<{ kind: CommitKind; id: string; batch: BatchRecord | null }> {
  const { chunks, fixed, followerJson, id, idempotency, lines, nowMs, owner, priority, resultTtlMs } = commit;
  const [kind, target, values] = await script.run(redis, {
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
      bytes: commit.bytes,
      priority,
      mostFailed: commit.mostFailed,
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
  });
  return { kind, id: target, batch: values === undefined ? null : decodeBatch(values) };
}
