import { predictionStatuses } from "@millrace/shared/predictions/prediction.js";
import { z } from "zod";
import { pageOf, timeSchema } from "../http/operation.js";

/** A prediction as it is told. */
export const predictionSchema = z
  .object({
    id: z.string(),
    object: z.literal("prediction"),
    model: z.string(),
    version: z.string(),
    status: z.enum(predictionStatuses),
    output: z.unknown().meta({ description: "By the kind of the model; null until it has succeeded" }),
    error: z.object({ code: z.string(), detail: z.string() }).nullable(),
    created_at: timeSchema,
    started_at: timeSchema.nullable(),
    finished_at: timeSchema.nullable(),
    attempts: z.int().min(0),
    cached: z.boolean(),
    deduplicated: z.boolean(),
    metadata: z
      .record(z.string(), z.unknown())
      .meta({ description: "As they were sent, but for the space between tokens" }),
    retry_of: z.string().nullable(),
    queue_position: z.int().nullable(),
    model_digest: z.string(),
    timings: z
      .object({ queue_ms: z.number(), inference_ms: z.number(), total_ms: z.number(), batch_rows: z.int() })
      .nullable(),
    urls: z.object({ self: z.string(), events: z.string(), cancel: z.string() }),
  })
  .meta({ id: "Prediction" });

/** A page of predictions. */
export const predictionPageSchema = pageOf(predictionSchema, "PredictionPage");

/** A webhook on its way, with every try. */
export const deliverySchema = z
  .object({
    id: z.string(),
    object: z.literal("delivery"),
    event: z.string(),
    url: z.string(),
    status: z.enum(["pending", "delivered", "failed"]),
    created_at: timeSchema,
    attempts: z.array(
      z.object({
        at: timeSchema,
        status: z.int().nullable(),
        duration_ms: z.number(),
        error: z.string().nullable(),
        response: z.string().nullable(),
      }),
    ),
    urls: z.object({ redeliver: z.string() }),
  })
  .meta({ id: "Delivery" });
