import { joiningSchema, tensorSpecSchema } from "@millrace/shared/models/announcement.js";
import { refusalSchema, versionStateSchema } from "@millrace/shared/models/model-order.js";
import { trafficSchema } from "@millrace/shared/models/traffic.js";
import { z } from "zod";
import { listOf, timeSchema } from "../http/operation.js";

const countSchema = z.int().min(0);
const formsSchema = z.array(z.string()).meta({ description: "How an input may be written" });
const breakerStateSchema = z.enum(["closed", "half_open", "open"]);

const inputSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("tensor"), tensors: z.array(tensorSpecSchema) }),
  z.object({
    kind: z.literal("tabular"),
    features: z.array(z.looseObject({ name: z.string(), type: z.string() })),
    derived: z.array(z.string()),
    forms: formsSchema,
  }),
  z.object({ kind: z.literal("text"), min_length: z.int(), max_length: z.int(), forms: formsSchema }),
  z.object({
    kind: z.literal("image"),
    formats: z.array(z.string()),
    max_bytes: z.int(),
    max_pixels: z.int(),
    forms: formsSchema,
  }),
]);

/** Output of a head; its fields depend on `head`. */
const outputSchema = z.object({
  head: z.string(),
  labels: z.array(z.string()).optional(),
  threshold: z.number().optional(),
  members: z.array(z.object({ name: z.string(), kind: z.string(), weight: z.number() })).optional(),
  vote: z.object({ method: z.enum(["hard", "soft"]), min_margin: z.number() }).optional(),
  tensors: z.array(tensorSpecSchema).optional(),
});

const shadowSchema = z.object({
  version: z.string(),
  shadow: z.string(),
  agree: countSchema,
  differ: countSchema,
  failed: countSchema,
  dropped: countSchema,
  agreement: z.number().nullable(),
  score_difference: z.number().nullable(),
});

/** Split of submissions that name no version. */
export const trafficAnswerSchema = z
  .object({
    automatic: z.boolean(),
    ...trafficSchema.shape,
    shares: z.record(z.string(), z.number()),
    revision: z.int(),
    changed_at: timeSchema.nullable(),
    previous: z.object(trafficSchema.shape).nullable(),
  })
  .meta({ id: "Traffic" });

/** A model as it is told. */
export const modelSchema = z
  .object({
    name: z.string(),
    object: z.literal("model"),
    title: z.string(),
    description: z.string().nullable(),
    kind: z.string(),
    default_version: z.string(),
    versions: z.array(
      z.object({
        version: z.string(),
        digest: z.string(),
        workers_alive: countSchema,
        circuit_breaker: breakerStateSchema,
        joining: joiningSchema,
        metrics: z.record(z.string(), z.unknown()),
      }),
    ),
    refused: z.array(refusalSchema),
    traffic: trafficAnswerSchema,
    shadows: z.array(shadowSchema),
    workers_alive: countSchema,
    accepting: z.boolean(),
    queue: z.object({
      waiting: countSchema,
      scheduled: countSchema,
      running: countSchema,
      failed: countSchema,
      batch_rows: countSchema,
    }),
    input: inputSchema,
    output: outputSchema,
    joining: joiningSchema,
    batching: z.looseObject({ joinable: z.boolean() }),
    timeout_ms: z.number(),
    attempts: z.int(),
    sample_input: z.unknown(),
    urls: z.object({ self: z.string(), predictions: z.string() }),
  })
  .meta({ id: "Model" });

/** Refusals of all models by living workers, also of models that were never served, and of folders by any name. */
export const refusedModelsSchema = z
  .array(
    z.object({
      model: z.string().meta({ description: "Name of the model's folder; escaped where it is no model's name" }),
      ...refusalSchema.shape,
    }),
  )
  .meta({ description: "What living workers refuse to serve, each with the whole reason" });

/** All models. */
export const modelListSchema = z
  .object({ ...listOf(modelSchema, "Models").shape, refused: refusedModelsSchema })
  .meta({ id: "ModelList" });

/** Reports of living workers on an order to load or unload. */
export const orderOutcomeSchema = z
  .object({
    model: z.string(),
    workers: z.array(z.object({ worker: z.string(), versions: z.array(versionStateSchema) })),
    workers_unanswered: countSchema,
  })
  .meta({ id: "OrderOutcome" });
