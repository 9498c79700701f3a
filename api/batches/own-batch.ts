import { type BatchRecord, batchJson } from "@millrace/shared/predictions/batch.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { tagOfId } from "@millrace/shared/redis/ids.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { readBatch } from "@millrace/shared/scripts/batches/read-batch.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { KnownModel, ModelDirectory } from "../models/model-directory.js";
import { awaitEnd } from "../predictions/await-end.js";
import type { Notices } from "../predictions/notices.js";

export interface OwnBatchDependencies {
  redis: RedisClient;
  directory: ModelDirectory;
  notices: Notices;
  clock: Clock;
}

/** A batch of the owner's, as it stands. Another owner's id is unknown too. Throws `batch_not_found`. */
export async function ownBatch(
  deps: Pick<OwnBatchDependencies, "redis" | "directory">,
  owner: string,
  id: string,
): Promise<{ model: KnownModel; batch: BatchRecord }> {
  const tag = tagOfId(id);
  const model = tag === null ? null : await deps.directory.findByTag(tag);
  const batch = model === null ? null : await readBatch(deps.redis, model.keys, id);
  if (model === null || batch?.owner !== owner) {
    throw new ServiceError("batch_not_found", "There is no such batch, or it has expired.");
  }
  return { model, batch };
}

/**
 * The JSON of a batch of the owner's as soon as it is final, else as it stands after `waitMs` or when nobody listens
 * any more.
 */
export async function awaitBatch(
  deps: OwnBatchDependencies,
  owner: string,
  id: string,
  waitMs: number,
  gone: AbortSignal,
): Promise<string> {
  const { batch: first, model } = await ownBatch(deps, owner, id);
  if (first.json !== null || waitMs === 0) return batchJson(first, deps.clock.now());
  const ending = {
    id,
    keys: model.keys,
    read: async () => (await ownBatch(deps, owner, id)).batch,
    isFinal: ({ json }: BatchRecord) => json !== null,
  };
  return batchJson(await awaitEnd(deps, ending, waitMs, gone), deps.clock.now());
}
