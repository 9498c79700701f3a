import { z } from "zod";
import type { Operations } from "../http/operation.js";
import { healthSchema, statisticsSchema } from "../monitoring/monitoring-schema.js";

const livenessSchema = z
  .object({
    status: z.literal("healthy"),
    models_loaded: z.int(),
    available_models: z.array(z.string()).optional().meta({ description: "With a key that has the scope `read`" }),
    uptime_seconds: z.int(),
  })
  .meta({ id: "Liveness" });
const readySchema = z
  .object({
    status: z.enum(["ready", "not_ready"]),
    redis: z.enum(["writable", "full", "not_replicated", "unavailable"]),
    store_swapped: z.string().nullable(),
    stopping: z.boolean(),
    turning_away: z.array(z.string()),
    durability: z.enum(["replica", "fsync", "everysec", "none", "unknown"]),
    promise: z.string(),
    warnings: z.array(z.string()),
  })
  .meta({ id: "Readiness" });

/** The operations of `routes/operations.ts`. */
export const operationsOperations: Operations = {
  "/health": { get: { summary: "The process is alive", scope: null, answers: { 200: ["Alive", livenessSchema] } } },
  "/ready": {
    get: {
      summary: "It can take work",
      scope: null,
      answers: { 200: ["It can", readySchema], 503: ["It cannot", readySchema] },
    },
  },
  "/metrics": {
    get: {
      summary: "Prometheus metrics; wants METRICS_KEY where that is set",
      scope: null,
      answers: { 200: ["Text", { "text/plain": z.string() }] },
    },
  },
  "/schemas/model.json": {
    get: {
      summary: "The JSON Schema of model.json",
      scope: null,
      answers: { 200: ["The schema", z.looseObject({}).meta({ id: "JsonSchema" })] },
    },
  },
};

/** The operations of `routes/monitoring.ts`. */
export const monitoringOperations: Operations = {
  "/monitoring/health": {
    get: {
      summary: "See models, cache and breakers over all workers",
      scope: ["read", "operate"],
      answers: { 200: ["The state of everything", healthSchema] },
    },
  },
  "/monitoring/statistics": {
    get: {
      summary: "See counts, latencies, confidence and drift of the last 24 hours",
      scope: ["read", "operate"],
      answers: { 200: ["By model and version; of your own, or of all for `inspect` and `operate`", statisticsSchema] },
    },
  },
};
