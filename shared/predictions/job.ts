import { z } from "zod";
import { responseFormSchema } from "./response-form.js";

/**
 * The job data of a waiting prediction, short because a million may wait. It outlives deployments, so while `v` is 1
 * only optional fields are added. The job's id is the prediction's, its timestamp the time of creation.
 */
export const predictionJobSchema = z.object({
  v: z.literal(1),
  /** Place in the model's order of arrival, from 1. */
  q: z.int().optional(),
  /** Owner: the name of the key that submitted it. */
  o: z.string(),
  /** Version, resolved at acceptance. */
  ver: z.string(),
  /** Input: a tensor pack in base64; empty where it is a blob. */
  x: z.string(),
  /** Bytes of an input that is a blob under the prediction's id. */
  b: z.int().optional(),
  /** Rows of the input, where it has more than one. */
  n: z.int().optional(),
  /** The form of the answer to a submission of tensors. */
  f: responseFormSchema.optional(),
  /** Expires at (ms since the epoch). */
  e: z.number().optional(),
  /** The caller's metadata. */
  m: z.custom<Record<string, unknown>>((value) => typeof value === "object" && value !== null).optional(),
  /** The metadata as JSON text, where `JSON.stringify` would change them; see `metadata.ts`. */
  mt: z.string().optional(),
  /** Its deduplication hash. */
  d: z.string().optional(),
  /** Set where a webhook reports the start, which must be noted before the end is written. */
  s: z.literal(1).optional(),
  /** Request id, for the logs. */
  r: z.string().optional(),
  /** W3C traceparent of the request. */
  tp: z.string().optional(),
  /** The prediction that this one is a retry of. */
  ro: z.string().optional(),
});

export type PredictionJob = z.infer<typeof predictionJobSchema>;

/** The name of every prediction's job, as Bull Board shows it. */
export const predictionJobName = "prediction";

/** Finished jobs that stay visible in the queue page, per queue and state; results live in keys of their own. */
export const keptJobs = 1000;

/** Entries kept in BullMQ's event stream of a queue, roughly. */
export const keptEvents = 1000;

/**
 * The place in BullMQ's `prioritized` from which on jobs wait by priority, behind those that have none; BullMQ's own
 * are below.
 */
export const behindByPriority = 2 ** 40;

/** A job's score in BullMQ's `delayed` is its due time (ms) times this, plus a counter below it. */
export const delayedScorePerMs = 0x1000;

/** Period over which the rate of starts of a queue is measured, and age from which a rate no longer counts; in ms. */
export const drainWindowMs = 1000;
export const drainStaleMs = 10_000;

/** Followers of a prediction that one step tells of its start or end: a delivery each is most of what a step costs. */
export const toldAtOnce = 16;

/** Delayed jobs that are due and put among those that wait, in one step. */
export const promotedAtOnce = 128;

/** Most predictions that one step accepts, takes, notes, ends or completes. */
export const mostInStep = 64;

/** A step that accepts takes no more once its inputs have this size. */
export const largestStepBytes = 1_000_000;

/** APIs that are looked for among those who watch a prediction. */
export const mostWatchers = 64;

/** What becomes of a job that ends: it is removed, or stays visible in the queue page, as completed or as failed. */
export const jobOutcomes = { removed: "0", completed: "1", failed: "2" } as const;

/** The data of a job whose prediction was ended from outside. */
export const endedJobData = "{}";

/** Follows an id under an idempotency key whose submission was joined to the prediction. */
export const joinedMark = "|j";

/** In place of a lock token, to end a prediction: in any state that is not final, or only if it does not run. */
export const anyToken = "*";
export const unbegunToken = "";
