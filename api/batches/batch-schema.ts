import { batchStatuses } from "@millrace/shared/predictions/batch.js";
import { z } from "zod";
import { pageOf, timeSchema } from "../http/operation.js";
import { batchOptionsSchema } from "./batch-options.js";

const countSchema = z.int().min(0);

/** A batch as it is told. */
export const batchSchema = z
  .object({
    id: z.string(),
    object: z.literal("batch"),
    model: z.string(),
    version: z.string(),
    model_digest: z.string(),
    status: z.enum(batchStatuses),
    counts: z.object({
      total: countSchema,
      succeeded: countSchema,
      failed: countSchema,
      canceled: countSchema,
      pending: countSchema,
    }),
    progress: z.number().min(0).max(1),
    created_at: timeSchema,
    started_at: timeSchema.nullable(),
    finished_at: timeSchema.nullable(),
    rows_per_second: z.number().nullable(),
    eta_ms: z.number().nullable(),
    metadata: z
      .record(z.string(), z.unknown())
      .meta({ description: "As they were sent, but for the space between tokens" }),
    retry_of: z.string().nullable(),
    urls: z.object({
      self: z.string(),
      events: z.string(),
      cancel: z.string(),
      results: z.string(),
      retry: z.string(),
    }),
  })
  .meta({ id: "Batch" });

/** A page of batches. */
export const batchPageSchema = pageOf(batchSchema, "BatchPage");

/** The JSON body of a batch; it is read as it arrives, so the inputs are checked one by one. */
export const batchSubmissionSchema = batchOptionsSchema
  .extend({ inputs: z.array(z.unknown()) })
  .meta({ id: "BatchSubmission" });

/** The result of one row. */
export const batchResultSchema = z
  .object({
    index: countSchema,
    first_index: countSchema.optional().meta({ description: "Where the row was in the batch that this one retries" }),
    status: z.enum(["succeeded", "failed", "canceled"]),
    output: z.unknown(),
    error: z.object({ code: z.string(), detail: z.string() }).nullable(),
  })
  .meta({ id: "BatchResult" });

/** A page of results. */
export const batchResultPageSchema = pageOf(batchResultSchema, "BatchResultPage");
