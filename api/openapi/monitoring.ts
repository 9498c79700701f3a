import type { Operations } from "../http/operation.js";
import { healthSchema, statisticsSchema } from "../monitoring/monitoring-schema.js";

/** The operations of `routes/monitoring.ts`. */
export const monitoringOperations: Operations = {
  "/monitoring/health": {
    get: {
      summary: "See models, cache and breakers over all workers",
      scope: "read",
      answers: { 200: ["The state of everything", healthSchema] },
    },
  },
  "/monitoring/statistics": {
    get: {
      summary: "See counts, latencies, confidence and drift of the last 24 hours",
      scope: "read",
      answers: { 200: ["By model and version; of your own, or of all for an admin", statisticsSchema] },
    },
  },
};
