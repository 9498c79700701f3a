import { type BatchRecord, batchJson } from "@millrace/shared/batch.js";
import type { RedisClient } from "@millrace/shared/connect-redis.js";
import { ServiceError } from "@millrace/shared/errors.js";
import { tagOfId } from "@millrace/shared/keys.js";
import { readBatch } from "@millrace/shared/scripts/batches.js";
import { watchPrediction } from "@millrace/shared/scripts/watch.js";
import type { KnownModel, ModelDirectory } from "../model-directory.js";
import type { Notices } from "../notices.js";

export interface OwnBatchDependencies {
  redis: RedisClient;
  directory: ModelDirectory;
  notices: Notices;
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
  if (model === null || batch?.owner !== owner) throw new ServiceError("batch_not_found", "there is no such batch");
  return { model, batch };
}

/** The JSON of a batch of the owner's as soon as it is final, else as it stands after `waitMs` or when nobody listens any more. */
export async function awaitBatch(
  deps: OwnBatchDependencies,
  owner: string,
  id: string,
  waitMs: number,
  gone: AbortSignal,
): Promise<string> {
  let { batch, model } = await ownBatch(deps, owner, id);
  if (batch.json !== null || waitMs === 0) return batchJson(batch, Date.now());
  const waiter = deps.notices.wait(id, waitMs);
  const stop = () => waiter.close();
  gone.addEventListener("abort", stop);
  try {
    await watchPrediction(deps.redis, model.keys, id, deps.notices.apiId, { start: false });
    // It may have ended before the note was there, so it is read again before the first wait.
    for (let waiting = true; waiting; ) {
      batch = (await ownBatch(deps, owner, id)).batch;
      if (batch.json !== null) {
        // The step that ended it took the notes away; one that came after it would stay for a day.
        await deps.redis.unlink(model.keys.interest(id)).catch(() => undefined);
        break;
      }
      waiting = (await waiter.next()) !== null;
    }
    if (batch.json === null) batch = (await ownBatch(deps, owner, id)).batch;
    return batchJson(batch, Date.now());
  } finally {
    gone.removeEventListener("abort", stop);
    waiter.close();
  }
}
