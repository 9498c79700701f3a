import { largestStepBytes, mostInStep, predictionJobName } from "../../predictions/job.js";
import type { ConfirmedWrite } from "../../redis/confirm-writes.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import type { ModelKeys } from "../../redis/keys.js";
import type { Clock } from "../../redis/store-clock.js";
import { joinCalls } from "../../service/join-turn.js";
import { defineScript } from "../lua/define-script.js";
import { answers, type Fields, flag, number, optional, text, unnamed, type ValuesOf } from "../lua/fields.js";
import { type AcceptAnswer, type AcceptOutcome, acceptOutcome } from "./accept-outcome.js";
import { type Idempotency, idempotencyHashes } from "./idempotency.js";

/** Arguments that apply to all predictions accepted in one step, as read by `accept-all.lua`. */
export const acceptFields = {
  queue: text("Prefix of the keys of the model's queue."),
  base: text("Prefix of the model's own keys."),
  nowMs: number("Time of acceptance."),
  resultTtlMs: number("The result time."),
  jobName: text("The name of each job."),
  jobsLimit: number("Limit of waiting jobs."),
  rowsLimit: number("Limit of waiting rows."),
  bytesLimit: number("Limit of waiting bytes."),
  ownerPart: number("The share of each limit for one owner."),
  mostFollowers: number("Limit of submissions joined to one prediction."),
} satisfies Fields;

/** Arguments of each prediction, as read by `accept-all.lua`. */
export const acceptEach = {
  id: text("Id of the prediction and of its job."),
  members: text("The job's data: a JSON object with at least one member, without its opening brace."),
  expiresAtMs: optional(number("Time of expiry, unless it has started.")),
  delayMs: number("Delay before the start."),
  priority: number("0: in order of arrival; 1 (highest) to 1000 (lowest): behind 0."),
  watcher: optional(text("The API to notify of the end.")),
  wantsStart: flag("Whether the follower asks for the start."),
  owner: text("The owner."),
  dedup: optional(text("The deduplication hash.")),
  idempotency: optional(text("The end of the name of the owner's idempotency key.")),
  bodyHashes: optional(text("Hashes of the body, with that key.")),
  follower: optional(text("The follower to call, as JSON.")),
  pieces: number("Pieces of an input that is a blob: all must exist, and are kept from now on. 0: not a blob."),
  share: text("Its weight in the queue; see `fair-queue.lua`."),
} satisfies Fields;

/**
 * One step accepts any number of predictions of one model. For each prediction, the following exist together or not at
 * all: the value of its idempotency key, its deduplication entry, its place under the queue limits, BullMQ's job, the
 * owner's index, and the entries of watchers and followers.
 *
 * Jobs without a delay, which are nearly all, are added as BullMQ 6.7 adds them, except for its event stream, which has
 * no reader and would be a third of the cost. `test/queue/accept.test.ts` compares the result with a queue filled by
 * BullMQ. `fair-queue.lua` defines where they wait and in which order they are taken.
 */
const script = defineScript({
  name: "millraceAccept",
  file: "queue/accept",
  keys: { wait: unnamed(text("The model's wait list; it sets the hash slot.")) },
  fields: acceptFields,
  each: acceptEach,
  answer: answers<AcceptAnswer[]>("The outcome of each, in order."),
});

export interface Acceptance {
  id: string;
  /** Time of submission, in ms since the epoch; expiry counts from it. */
  submittedMs?: number;
  owner: string;
  /** A JSON object with at least one field; the step adds `q`. */
  dataJson: string;
  delayMs: number;
  /** Time of expiry before a start, in ms since the epoch, as in its data; null or none: never. */
  expiresAtMs?: number | null;
  /** 0: in order of arrival; 1 (highest) to 1000 (lowest): behind 0. */
  priority: number;
  /** The API to notify of the end, for a waiting caller. */
  watcher: string | null;
  /** Identifies identical submissions; null: always computed. */
  dedup: string | null;
  idempotency: Idempotency | null;
  /** The webhook follower, and its delivery ids; see `predictions/delivery.ts`. */
  follower: { json: string; wantsStart: boolean } | null;
  /**
   * Number of pieces of an input that is a blob under this id, sent before on this connection, and their bytes; see
   * `blob.ts`.
   */
  pieces?: number;
  blobBytes?: number;
  /** Rows of the input; 1 by default. */
  rows?: number;
}

/** Limits of the work that may wait for a model. */
export interface QueueLimits {
  jobs: number;
  rows: number;
  bytes: number;
  /** The share of each limit for one owner, at most 1. */
  ownerPart: number;
  /** Submissions that are joined to one prediction; more get a prediction of their own. */
  followers: number;
}

/** Settings for everything that is accepted. */
export interface AcceptSettings {
  limits: QueueLimits;
  resultTtlMs: number;
  /** An owner's weight; 1 by default. */
  weightOf?(owner: string): number;
}

/**
 * Accepts predictions of one model, or gives the reason why they need no job of their own; outcomes in the order given.
 */
export async function acceptPredictions(
  redis: RedisClient,
  keys: ModelKeys,
  acceptances: readonly Acceptance[],
  settings: AcceptSettings & { nowMs: number },
): Promise<AcceptOutcome[]> {
  const outcomes = await script.run(redis, {
    keys: { wait: `${keys.queue}${bullKeys.wait}` },
    fields: acceptFieldsOf(keys, settings),
    each: acceptances.map((acceptance) => acceptEachOf(keys, acceptance, settings)),
  });
  return outcomes.map(acceptOutcome);
}

export type Accept = (keys: ModelKeys, acceptance: Acceptance) => Promise<AcceptOutcome>;

/**
 * Accepts predictions; those of one model that come in the same turn of the event loop go to Redis as one step, which
 * saves it more than half of the work when many callers come at once.
 */
export function acceptTogether(confirmed: ConfirmedWrite, settings: AcceptSettings, clock: Clock): Accept {
  const accept = joinCalls<{ keys: ModelKeys; acceptance: Acceptance }, AcceptOutcome>(
    ([first, ...others]) => {
      const acceptances = [first, ...others].map(({ acceptance }) => acceptance);
      // No later than any of them was submitted, or one could expire before its time.
      const nowMs = Math.min(clock.now(), ...acceptances.map(({ submittedMs = Infinity }) => submittedMs));
      return confirmed(first.keys, (redis) =>
        acceptPredictions(redis, first.keys, acceptances, { nowMs, ...settings }),
      );
    },
    {
      keyOf: ({ keys }) => keys.base,
      maxCalls: mostInStep,
      maxBytes: largestStepBytes,
      bytesOf: ({ acceptance }) => acceptance.dataJson.length,
    },
  );
  return (keys, acceptance) => accept({ keys, acceptance });
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
  mostFollowers: limits.followers,
});

/** Cost of a job in its queue, and its owner's weight. */
interface Share {
  rows: number;
  bytes: number;
  /** 0 first, then 1 to 1000, among its owner's jobs. */
  rank: number;
  weight: number;
  owner: string;
}

/** A share in the form read by the steps. */
const shareText = ({ bytes, owner, rank, rows, weight }: Share): string =>
  `${rows} ${bytes} ${rank} ${weight} ${owner}`;

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
