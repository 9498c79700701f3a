import type { RedisClient } from "../connect-redis.js";
import type { ModelKeys } from "../keys.js";
import { decodeResult, type StoredResult } from "../prediction.js";
import { decodeNote, type RunNote } from "./run-notes.js";

/** A prediction that is not final, as its parts in Redis tell. */
export interface PendingPrediction {
  /** The job's data, not yet parsed. */
  dataJson: string;
  createdAt: number;
  delayMs: number;
  priority: number;
  attemptsMade: number;
  note: RunNote | null;
  /** Jobs in the waiting list, and jobs that were ever added. */
  waiting: number;
  added: number;
}

export type ReadPrediction = { final: StoredResult } | { pending: PendingPrediction } | null;

/**
 * Reads a prediction in one round trip; null for one that is not known. The job is read before the result: the
 * result is written before the job goes, so that one of the two is always seen.
 */
export async function readPrediction(redis: RedisClient, keys: ModelKeys, id: string): Promise<ReadPrediction> {
  const answers = await redis
    .pipeline()
    .hmget(`${keys.queue}${id}`, "data", "timestamp", "delay", "priority", "atm", "finishedOn")
    .hget(keys.running, id)
    .llen(`${keys.queue}wait`)
    .get(`${keys.queue}id`)
    .get(keys.result(id))
    .exec();
  const values = (answers ?? []).map(([fault, value]) => {
    if (fault !== null) throw fault;
    return value;
  });
  const [job, note, waiting, added, result] = values as [
    (string | null)[],
    string | null,
    number,
    string | null,
    string | null,
  ];
  if (result !== null) return { final: decodeResult(result) };
  const [dataJson, createdAt, delayMs, priority, attemptsMade, finishedOn] = job;
  // A finished job stays visible in the queue page for longer, perhaps, than its result can be read.
  if (dataJson == null || finishedOn != null) return null;
  return {
    pending: {
      dataJson,
      createdAt: Number(createdAt),
      delayMs: Number(delayMs ?? 0),
      priority: Number(priority ?? 0),
      attemptsMade: Number(attemptsMade ?? 0),
      note: note === null ? null : decodeNote(note),
      waiting,
      added: Number(added ?? 0),
    },
  };
}
