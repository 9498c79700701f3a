import { z } from "zod";
import { responseFormSchema } from "./response-form.js";

/**
 * What BullMQ stores of a waiting prediction, short because a million may wait; it outlives deployments, so fields are
 * only ever added, as optional ones, while `v` stays 1. The job's id is the prediction's, its timestamp the creation.
 */
export const predictionJobSchema = z.object({
  v: z.literal(1),
  /** Place in the model's order of arrival, from 1. */
  q: z.int().optional(),
  /** Owner: the name of the key that submitted it. */
  o: z.string(),
  /** Version that was resolved when it was accepted. */
  ver: z.string(),
  /** Input: a tensor pack in base64; empty where it is a blob. */
  x: z.string(),
  /** Bytes of an input that is a blob under the prediction's id. */
  b: z.int().optional(),
  /** How whoever submitted tensors wants their answer. */
  f: responseFormSchema.optional(),
  /** Expires at (ms since the epoch). */
  e: z.number().optional(),
  /** The caller's metadata. */
  m: z.custom<Record<string, unknown>>((value) => typeof value === "object" && value !== null).optional(),
  /** The same as JSON text, where `m` would be written otherwise; see `metadata.ts`. */
  mt: z.string().optional(),
  /** Deduplication hash that it holds. */
  d: z.string().optional(),
  /** Set where a webhook is to tell of the start, which must then be told before the end is written. */
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
