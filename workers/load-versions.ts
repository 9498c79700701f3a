import type { Announcement } from "@millrace/shared/announcement.js";
import type { RedisClient } from "@millrace/shared/connect-redis.js";
import { modelKeys } from "@millrace/shared/keys.js";
import { announceVersion } from "@millrace/shared/scripts/announce.js";
import type { BadModel, FoundVersion } from "./model-repository.js";
import type { ServedVersion } from "./process-prediction.js";
import type { SlotPool } from "./slot-pool.js";

/** A version in the slots that every API has been told of. */
export interface LoadedVersion extends ServedVersion {
  announcement: Announcement;
}

/** Loads what was found into the slots and announces it; tells of each version that it cannot serve why not. */
export async function loadVersions(options: {
  found: readonly FoundVersion[];
  bad: readonly BadModel[];
  pool: SlotPool;
  redis: RedisClient;
  keyPrefix: string;
  workerId: string;
}): Promise<{ loaded: LoadedVersion[]; refused: BadModel[] }> {
  const { found, pool } = options;
  const refused = [...options.bad];
  const loaded: LoadedVersion[] = [];
  const replies = await pool.load(
    found.map(({ file, manifest, model, version }, key) => ({ key, model, version, file, manifest })),
  );
  for (const [key, { digest, manifest, model, version }] of found.entries()) {
    const reply = replies[key];
    if (!reply?.ok) {
      refused.push({ model, version, reason: reply?.reason ?? "no slot answered" });
      continue;
    }
    const { inputs, joinable, outputs } = reply;
    const announcement: Announcement = { v: 1, model, version, digest, manifest, inputs, outputs, joinable };
    const keys = modelKeys(options.keyPrefix, model);
    const answer = await announceVersion(options.redis, options.keyPrefix, keys, announcement, options.workerId);
    if (!answer.announced) {
      const reason = `another worker serves other bytes under this version (${answer.servedDigest}, here ${digest})`;
      refused.push({ model, version, reason });
      continue;
    }
    loaded.push({
      model,
      version,
      digest,
      uniform: manifest.kind !== "tensor",
      attempts: manifest.attempts,
      cacheTtlSeconds: manifest.cache_ttl_seconds,
      announcement,
      lane: {
        model,
        modelKey: key,
        joinable,
        maxBatchRows: manifest.batching.max_batch_rows,
        maxDelayMs: manifest.batching.max_delay_ms,
        timeoutMs: manifest.timeout_ms,
      },
    });
  }
  return { loaded, refused };
}
