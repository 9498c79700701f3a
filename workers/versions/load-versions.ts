import type { Announcement } from "@millrace/shared/models/announcement.js";
import { cacheTtlSeconds } from "@millrace/shared/models/manifest.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { digestOf } from "@millrace/shared/redis/digest.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { announceVersion, digestElsewhere } from "@millrace/shared/scripts/models/announce.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { ServedVersion } from "../jobs/taken-prediction.js";
import type { LoadRequest } from "../runs/load-request.js";
import type { SlotPool } from "../runs/slot-pool.js";
import type { FoundVersion } from "./model-repository.js";

/** A version in the slots, announced to the APIs. */
export interface LoadedVersion extends ServedVersion {
  announcement: Announcement;
  /** Identifies the loaded files. */
  request: LoadRequest;
  stamp: string;
}

/**
 * The outcome of loading one version. Two reasons may pass while its files stay the same: a `conflict` with another
 * worker's files, and a `death` of the process that loaded it.
 */
export type Loading =
  | { found: FoundVersion; loaded: LoadedVersion }
  | { found: FoundVersion; reason: string; passing: Passing | null };

export type Passing = "conflict" | "death";

/** Loads versions into the slots and announces them; resolves to the outcome of each. */
export async function loadVersions(options: {
  found: readonly FoundVersion[];
  pool: SlotPool;
  /** A key that no version in these slots has had before. */
  newKey(): number;
  redis: RedisClient;
  keyPrefix: string;
  workerId: string;
  log: Logger;
}): Promise<Loading[]> {
  const { keyPrefix, log, pool, redis, workerId } = options;
  const results: Loading[] = [];
  const wanted: { found: FoundVersion; request: LoadRequest }[] = [];
  for (const found of options.found) {
    const { digest, file, folder, manifest, model, version } = found;
    const servedDigest = await digestElsewhere(redis, modelKeys(keyPrefix, model), version, workerId);
    if (servedDigest !== null && servedDigest !== digest) results.push(conflicting(found, servedDigest));
    else wanted.push({ found, request: { key: options.newKey(), model, version, folder, file, digest, manifest } });
  }
  const replies = wanted.length === 0 ? [] : await pool.load(wanted.map(({ request }) => request));
  for (const [i, { found, request }] of wanted.entries()) {
    const reply = replies[i];
    if (!reply?.ok) {
      const passing = reply?.died ? "death" : null;
      results.push({ found, reason: reply?.reason ?? "no slot answered", passing });
      continue;
    }
    const { digest, manifest, model, stamp, version } = found;
    const { drawsNumbers, inputs, joining, outputs, proofFault } = reply;
    if (proofFault)
      log.error("rows of a model are not kept apart although its graph says so", { model, version, joining });
    const joinable = joining.mode !== "off";
    const fingerprint = digestOf(digest, JSON.stringify(manifest));
    const announcement: Announcement = {
      ...{ v: 1, model, version, digest, manifest, inputs, outputs, joinable, joining },
      ...{ drawsNumbers, fingerprint },
    };
    const keys = modelKeys(keyPrefix, model);
    const answer = await announceVersion(redis, keyPrefix, keys, announcement, workerId);
    if (!answer.announced) {
      pool.unload(request.key);
      results.push(conflicting(found, answer.servedDigest));
      continue;
    }
    const { batching, timeout_ms: timeoutMs } = manifest;
    const { max_batch_rows: maxBatchRows, max_delay_ms: maxDelayMs } = batching;
    const loaded: LoadedVersion = {
      model,
      version,
      digest,
      uniform: manifest.kind !== "tensor",
      attempts: manifest.attempts,
      cacheTtlSeconds: cacheTtlSeconds(manifest, drawsNumbers),
      announcement,
      request,
      stamp,
      runQueue: { model, version, modelKey: request.key, joinable, maxBatchRows, maxDelayMs, timeoutMs },
    };
    results.push({ found, loaded });
  }
  return results;
}

const conflicting = (found: FoundVersion, servedDigest: string): Loading => ({
  found,
  reason: `another worker serves other bytes under this version (${servedDigest}, here ${found.digest})`,
  passing: "conflict",
});
