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
