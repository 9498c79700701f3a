import { z } from "zod";
import type { Operations } from "../http/operation.js";

const healthSchema = z
  .object({
    status: z.literal("healthy"),
    models_loaded: z.int(),
    available_models: z.array(z.string()),
    uptime_seconds: z.int(),
  })
  .meta({ id: "Liveness" });
const readySchema = z
  .object({
    status: z.enum(["ready", "not_ready"]),
    redis: z.enum(["writable", "full", "not_replicated", "unavailable"]),
    stopping: z.boolean(),
    turning_away: z.array(z.string()),
    durability: z.enum(["replica", "fsync", "everysec", "none", "unknown"]),
    promise: z.string(),
    warnings: z.array(z.string()),
  })
  .meta({ id: "Readiness" });

/** The operations of `routes/operations.ts`. */
export const operationsOperations: Operations = {
  "/health": { get: { summary: "The process is alive", scope: null, answers: { 200: ["Alive", healthSchema] } } },
  "/ready": {
    get: {
      summary: "It can take work",
      scope: null,
      answers: { 200: ["It can", readySchema], 503: ["It cannot", readySchema] },
    },
  },
  "/metrics": {
    get: { summary: "Prometheus metrics", scope: null, answers: { 200: ["Text", { "text/plain": z.string() }] } },
  },
  "/schemas/model.json": {
    get: {
      summary: "The JSON Schema of model.json",
      scope: null,
      answers: { 200: ["The schema", z.looseObject({}).meta({ id: "JsonSchema" })] },
    },
  },
};
