import { Counter, collectDefaultMetrics, Histogram, Registry } from "prom-client";

/** What an API tells Prometheus; no label holds an owner or an id. */
export function createApiMetrics() {
  const register = new Registry();
  const registers = [register];
  collectDefaultMetrics({ register });
  return {
    register,
    invalidInput: new Counter({
      name: "ml_invalid_input_total",
      help: "Inputs that were refused, by why",
      labelNames: ["model", "code"],
      registers,
    }),
    dedup: new Counter({
      name: "ml_dedup_total",
      help: "Submissions that could be identical to others: hit (from the cache), join (to one on its way), miss",
      labelNames: ["model", "outcome"],
      registers,
    }),
    http: new Histogram({
      name: "ml_http_request_duration_seconds",
      help: "HTTP requests by route template, method and status",
      labelNames: ["method", "route", "status"],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
      registers,
    }),
  };
}

export type ApiMetrics = ReturnType<typeof createApiMetrics>;
