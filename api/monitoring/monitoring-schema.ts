import { z } from "zod";
import { timeSchema } from "../http/operation.js";
import { refusedModelsSchema } from "../models/model-schema.js";

const countSchema = z.int().min(0);
const percentilesSchema = z.object({ p50: z.number(), p95: z.number(), p99: z.number() }).nullable();

/** Models, cache and breakers over all workers. */
export const healthSchema = z
  .object({
    status: z.enum(["ok", "degraded"]),
    models: z.record(
      z.string(),
      z.object({
        status: z.enum(["ok", "degraded", "unavailable"]),
        prediction_count: countSchema,
        error_rate: z.number(),
        avg_latency: z.number().nullable(),
        workers: countSchema,
      }),
    ),
    refused: refusedModelsSchema,
    cache: z.object({
      prediction_cache: z.object({ size: countSchema, hits: countSchema, misses: countSchema, hit_rate: z.number() }),
    }),
    circuit_breakers: z.record(
      z.string(),
      z.record(
        z.string(),
        z.object({
          state: z.enum(["closed", "half_open", "open"]),
          workers: countSchema,
          retry_at: timeSchema.nullable(),
        }),
      ),
    ),
  })
  .meta({ id: "Health" });

/** Counts, latencies, confidence, cache and drift by model and version. */
export const statisticsSchema = z
  .object({
    window_seconds: z.int(),
    of: z.string().meta({ description: "The caller's name, or `all`" }),
    models: z.record(
      z.string(),
      z.object({
        versions: z.record(
          z.string(),
          z.object({
            counts: z.record(z.string(), countSchema),
            error_rate: z.number().nullable(),
            latency_ms: z.object({
              queue: percentilesSchema,
              inference: percentilesSchema,
              total: percentilesSchema,
            }),
            confidence: z.object({ mean: z.number(), p50: z.number(), p05: z.number() }).nullable(),
            cache: z.object({ hits: countSchema, joins: countSchema, misses: countSchema }),
            hit_rate: z.number().nullable(),
            drift: z
              .object({
                window_seconds: z.int(),
                inputs: countSchema,
                psi: z.record(z.string(), z.number()).nullable(),
              })
              .nullable(),
          }),
        ),
      }),
    ),
  })
  .meta({ id: "Statistics" });
