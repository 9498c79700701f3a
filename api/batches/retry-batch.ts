import { batchFrame } from "@millrace/shared/predictions/batch.js";
import { rawMember } from "@millrace/shared/predictions/raw-member.js";
import type { ConfirmedWrite } from "@millrace/shared/redis/confirm-writes.js";
import { digestOf } from "@millrace/shared/redis/digest.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { noticeChannel } from "@millrace/shared/redis/keys.js";
import { commitBatch } from "@millrace/shared/scripts/batches/commit-batch.js";
import { readLabels } from "@millrace/shared/scripts/batches/read-batch.js";
import { dropStaged } from "@millrace/shared/scripts/batches/stage-chunks.js";
import { chunksAtOnce, stageFailed } from "@millrace/shared/scripts/batches/stage-failed.js";
import type { AcceptSettings } from "@millrace/shared/scripts/queue/accept.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { assertCapacity } from "../admission/new-work.js";
import type { OwnerStorage } from "../admission/owner-storage.js";
import { assertQueueCapacity } from "../admission/queue-capacity.js";
import type { RedisMemory } from "../admission/redis-memory.js";
import { usedForAnother } from "../predictions/submission.js";
import { type OwnBatchDependencies, ownBatch } from "./own-batch.js";

export interface RetryBatchDependencies extends OwnBatchDependencies {
  memory: RedisMemory;
  storage: OwnerStorage;
  confirmed: ConfirmedWrite;
  keyPrefix: string;
  resultTtlSeconds: number;
  acceptSettings: AcceptSettings;
  uploadKeepMs: number;
}

/**
 * Makes a new batch of the lines that failed, whose inputs were kept when they did; `replayed`: or leads to the one
 * that the same key made before. Throws `state_conflict`, and `idempotency_mismatch` for a key of another request.
 */
export async function retryBatch(
  deps: RetryBatchDependencies,
  owner: string,
  id: string,
  idempotencyKey: string | null,
  takeRows: (rows: number) => Promise<void>,
): Promise<{ id: string; replayed: boolean }> {
  const { batch, model } = await ownBatch(deps, owner, id);
  if (batch.json === null) throw new ServiceError("state_conflict", "The batch is not final yet.");
  if (batch.failed === 0) throw new ServiceError("state_conflict", "The batch has no failed rows.");
  assertCapacity(deps, owner, model, batch.version);
  await assertQueueCapacity(deps, model.keys, owner);
  await takeRows(batch.failed);
  const { keys } = model;
  const next = newId(keys.tag);
  const numbers = (await deps.redis.hkeys(keys.batchFailed(id))).sort((a, b) => Number(a) - Number(b));
  let [lines, bytes] = [0, 0];
  for (let i = 0; i < numbers.length; i += chunksAtOnce) {
    const some = numbers.slice(i, i + chunksAtOnce);
    const staged = await stageFailed(deps.redis, keys, id, next, some, deps.uploadKeepMs);
    lines += staged.lines;
    bytes += staged.bytes;
  }
  const { model_digest: modelDigest } = JSON.parse(batch.json) as { model_digest: string };
  const metadata = rawMember(Buffer.from(batch.json), "metadata");
  const { version } = batch;
  const labels = await readLabels(deps.redis, keys, id);
  const commit = {
    id: next,
    owner,
    nowMs: deps.clock.now(),
    chunks: numbers.length,
    lines,
    bytes,
    priority: 0,
    mostFailed: null,
    resultTtlMs: deps.resultTtlSeconds * 1000,
    idempotency: idempotencyKey === null ? null : { key: idempotencyKey, bodyHash: digestOf("retry", id) },
    followerJson: null,
    channelPrefix: noticeChannel(deps.keyPrefix, ""),
    version,
    weight: deps.acceptSettings.weightOf?.(owner) ?? 1,
    fixed: {
      ...batchFrame({ id: next, model: model.name, version, modelDigest, metadata, retryOf: id }),
      ...(labels !== null && { labels: JSON.stringify(labels) }),
    },
  };
  const { id: made, kind } = await deps.confirmed(keys, (redis) => commitBatch(redis, keys, commit));
  if (kind === "accepted" && lines > 0) return { id: next, replayed: false };
  await dropStaged(deps.redis, keys, next);
  if (kind === "replayed") return { id: made, replayed: true };
  if (kind === "mismatch") throw usedForAnother();
  throw new ServiceError("batch_not_found", "The batch's inputs have expired.");
}
