import { predictionJobName } from "../../predictions/job.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { type Fields, flag, number, optional, text, unnamed, type ValuesOf } from "../lua/fields.js";
import { type AcceptAnswer, type AcceptOutcome, acceptOutcome } from "./accept-outcome.js";
import { shareText } from "./fair-queue.js";
import { type Idempotency, idempotencyHashes } from "./idempotency.js";

/** What holds for all that is accepted in one step: the fields that `accept-all.lua` reads. */
export const acceptFields = {
  queue: text("Prefix of the keys of the model's queue."),
  base: text("Prefix of the model's own keys."),
  nowMs: number("Time of acceptance."),
  resultTtlMs: number("The result time."),
  jobName: text("The name of each job."),
  jobsLimit: number("Jobs that may wait."),
  rowsLimit: number("Rows that may wait."),
  bytesLimit: number("Bytes that may wait."),
  ownerPart: number("The part of each limit that one owner may have."),
} satisfies Fields;

/** What `accept-all.lua` reads of each prediction. */
export const acceptEach = {
  id: text("Id of the prediction and of its job."),
  members: text("The job's data: a JSON object with at least one member, without the brace that it begins with."),
  expiresAtMs: optional(number("Time of expiry, unless it has begun.")),
  delayMs: number("Delay before it may run."),
  priority: number("0 in order of arrival; 1 (first) to 1000 (last) behind those."),
  watcher: optional(text("The API to tell of the end.")),
  wantsStart: flag("Whether the follower wants to hear of the start."),
  owner: text("The owner."),
  dedup: optional(text("The deduplication hash.")),
  idempotency: optional(text("The end of the name of the owner's idempotency key.")),
  bodyHashes: optional(text("Hashes of the body sent with that key.")),
  follower: optional(text("The follower to call, as JSON.")),
  pieces: number("Pieces of an input that is a blob: they must all be there, and are kept from now on. 0: it is none."),
  share: text("Its weight in the queue; see `fair-queue.lua`."),
} satisfies Fields;

/**
 * Accepting predictions of one model is one step for as many as there are: for each, what was said under its
 * idempotency key, whether an identical one is on its way or cached, the depth limit, BullMQ's own job, the owner's
 * index and the notes of who waits and who is to be called come into being together or not at all.
 *
 * Jobs that are not delayed, which is nearly all of them, are added here as BullMQ 6.7 adds them, but for its event
 * stream, which nobody reads: it would be a third of the cost. `test/queue/accept.test.ts` holds that against a queue
 * that BullMQ filled. Where they wait and in which order they are taken is said in `fair-queue.lua`.
 */
const script = defineScript({
  name: "millraceAccept",
  file: "queue/accept",
  keys: { wait: unnamed(text("The model's wait list, which tells the slot.")) },
  fields: acceptFields,
  each: acceptEach,
});

export interface Acceptance {
  id: string;
  /** Time of submission, in ms since the epoch, from which its expiry counts. */
  submittedMs?: number;
  owner: string;
  /** A JSON object with at least one field; `q` is added to it. */
  dataJson: string;
  delayMs: number;
  /** When it expires unless it has begun (ms since the epoch), as its data say; null or none: never. */
  expiresAtMs?: number | null;
  /** 0 in order of arrival; 1 (first) to 1000 (last) behind those. */
  priority: number;
  /** The API to tell of the end, when its caller waits. */
  watcher: string | null;
  /** What makes a submission identical to another; null: it is computed whatever others there are. */
  dedup: string | null;
  idempotency: Idempotency | null;
  /** Whom to call, and with which delivery ids; see `predictions/delivery.ts`. */
  follower: { json: string; wantsStart: boolean } | null;
  /**
   * Pieces of an input that is a blob under this id, sent before on this connection, and their bytes; see `blob.ts`.
   */
  pieces?: number;
  blobBytes?: number;
  /** Rows of the input; 1 unless told. */
  rows?: number;
}

/** How much may wait for a model. */
export interface QueueLimits {
  jobs: number;
  rows: number;
  bytes: number;
  /** What part of each one owner may have, at most 1. */
  ownerPart: number;
}

/** What holds for everything that is accepted. */
export interface AcceptSettings {
  limits: QueueLimits;
  resultTtlMs: number;
  /** An owner's weight; 1 unless told. */
  weightOf?(owner: string): number;
}

/** Accepts predictions of one model, or says why they need no job of their own; outcomes in the order given. */
export async function acceptPredictions(
  redis: RedisClient,
  keys: ModelKeys,
  acceptances: readonly Acceptance[],
  settings: AcceptSettings & { nowMs: number },
): Promise<AcceptOutcome[]> {
  const answers = await script.run(redis, {
    keys: { wait: `${keys.queue}${bullKeys.wait}` },
    fields: acceptFieldsOf(keys, settings),
    each: acceptances.map((acceptance) => acceptEachOf(keys, acceptance, settings)),
  });
  return (answers as AcceptAnswer[]).map(acceptOutcome);
}

/** The values of `acceptFields`. */
export const acceptFieldsOf = (
  keys: ModelKeys,
  { limits, nowMs, resultTtlMs }: AcceptSettings & { nowMs: number },
): ValuesOf<typeof acceptFields> => ({
  queue: keys.queue,
  base: keys.base,
  nowMs,
  resultTtlMs,
  jobName: predictionJobName,
  jobsLimit: limits.jobs,
  rowsLimit: limits.rows,
  bytesLimit: limits.bytes,
  ownerPart: limits.ownerPart,
});

/** The values of `acceptEach` for one prediction. */
export function acceptEachOf(
  keys: ModelKeys,
  acceptance: Acceptance,
  { weightOf }: Pick<AcceptSettings, "weightOf">,
): ValuesOf<typeof acceptEach> {
  const { blobBytes = 0, dataJson, dedup, delayMs, expiresAtMs = null, follower, id, idempotency, owner } = acceptance;
  const { pieces = 0, priority, rows = 1, watcher } = acceptance;
  const bytes = dataJson.length + blobBytes;
  return {
    id,
    members: dataJson.slice(1),
    expiresAtMs,
    delayMs,
    priority,
    watcher,
    wantsStart: follower?.wantsStart ?? false,
    owner,
    dedup,
    idempotency: idempotency === null ? null : keys.idempotencyName(owner, idempotency.key),
    bodyHashes: idempotency === null ? null : idempotencyHashes(idempotency),
    follower: follower?.json ?? null,
    pieces,
    share: shareText({ rows, bytes, rank: priority, weight: weightOf?.(owner) ?? 1, owner }),
  };
}
