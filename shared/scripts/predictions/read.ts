import { endedJobData, type PredictionJob } from "../../predictions/job.js";
import { metadataText } from "../../predictions/metadata.js";
import { decodeResult, isFinalStatus, type PredictionView, type StoredResult } from "../../predictions/prediction.js";
import { decodeNote, type RunNote } from "../../predictions/run-note.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import type { ModelKeys } from "../../redis/keys.js";

/** A prediction that is not final, as stored in Redis. */
export interface PendingPrediction {
  /** The job's data, not yet parsed. */
  dataJson: string;
  createdAt: number;
  delayMs: number;
  attemptsMade: number;
  note: RunNote | null;
  /** Estimate of the number of jobs up to and including it; 1 for a taken one and for the next one. */
  position: number;
}

export type ReadPrediction = { final: StoredResult } | { pending: PendingPrediction } | null;

/**
 * Reads a prediction in one round trip; null for an unknown one. The job is read before the result: the result is
 * written before the job goes, so one of the two is always found. `owner` is its owner, where stored.
 */
export async function readPrediction(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  owner: string,
): Promise<ReadPrediction> {
  const answers = await redis
    .pipeline()
    .hmget(`${keys.queue}${id}`, "data", "timestamp", "delay", "atm", "finishedOn", "lane")
    .hget(keys.running, id)
    .zrank(keys.waitingOf(owner), id)
    .zcard(keys.waitingOwners)
    .zcard(`${keys.queue}${bullKeys.prioritized}`)
    .llen(`${keys.queue}${bullKeys.wait}`)
    .hget(keys.waitingLoad, "lane_in")
    .get(keys.result(id))
    .exec();
  const values = (answers ?? []).map(([fault, value]) => {
    if (fault !== null) throw fault;
    return value;
  });
  const [job, note, rank, owners, behind, listed, laneIn, result] = values as [
    (string | null)[],
    string | null,
    number | null,
    number,
    number,
    number,
    string | null,
    string | null,
  ];
  if (result !== null) return { final: decodeResult(result) };
  const [dataJson, createdAt, delayMs, attemptsMade, finishedOn, lane] = job;
  // A finished job may stay visible in the queue page for longer than its result.
  if (dataJson == null || finishedOn != null) return null;
  // The list approximately holds the jobs added last, so a job's place follows from its number without a search.
  const place = rank === null ? Number(lane ?? 0) - (Number(laneIn ?? 0) - listed) : rank + 1;
  return {
    pending: {
      dataJson,
      createdAt: Number(createdAt),
      delayMs: Number(delayMs ?? 0),
      attemptsMade: Number(attemptsMade ?? 0),
      note: note === null ? null : decodeNote(note),
      // Jobs of other owners come in between, about as many of each owner.
      position: Math.max(1, Math.min(listed + behind, (place - 1) * owners + 1)),
    },
  };
}

/** The owner of a prediction; null for an unknown one. */
export async function readPredictionOwner(redis: RedisClient, keys: ModelKeys, id: string): Promise<string | null> {
  const data = await redis.hget(`${keys.queue}${id}`, "data");
  const result = await redis.get(keys.result(id));
  if (result !== null) return decodeResult(result).owner;
  if (data === null || data === endedJobData) return null;
  return (JSON.parse(data) as { o?: string }).o ?? null;
}

/** The state of a prediction that is not final, at `now` (ms since the epoch). */
export function viewPending(
  model: { name: string; digestOf(version: string): string },
  id: string,
  { data, ...pending }: PendingPrediction & { data: PredictionJob },
  now: number,
): PredictionView {
  const { note } = pending;
  const begun = note !== null || pending.attemptsMade > 0;
  const expired = !begun && data.e !== undefined && data.e <= now;
  const scheduled = !begun && now < pending.createdAt + pending.delayMs;
  const status = expired ? "expired" : note !== null ? "running" : scheduled ? "scheduled" : "queued";
  return {
    id,
    model: model.name,
    version: data.ver,
    status,
    outputJson: null,
    error: expired ? { code: "expired", detail: "The prediction did not start before it expired." } : null,
    createdAt: pending.createdAt,
    startedAt: note?.startedAt ?? null,
    finishedAt: isFinalStatus(status) ? Math.max(data.e as number, pending.createdAt) : null,
    attempts: note?.attempt ?? pending.attemptsMade,
    cached: false,
    deduplicated: false,
    metadata: metadataText(data),
    retryOf: data.ro,
    queuePosition: status === "queued" ? pending.position : null,
    modelDigest: model.digestOf(data.ver),
    timings: null,
  };
}
