import { Counter, collectDefaultMetrics, Histogram, Registry } from "prom-client";
import { shedCodes } from "../http/problem.js";

/** Metrics of an API; no label holds an owner or an id. */
export function createApiMetrics() {
  const register = new Registry();
  const registers = [register];
  collectDefaultMetrics({ register });
  const shed = new Counter({
    name: "ml_requests_shed_total",
    help: "Submissions that were turned away to protect the service, by reason",
    labelNames: ["reason"],
    registers,
  });
  // From 0, because an alert cannot see the rise of a counter that begins with 1.
  for (const reason of shedCodes) shed.inc({ reason }, 0);
  const responses = new Counter({
    name: "ml_http_responses_total",
    help: "Answers to requests other than those of probes and scrapes, by class of status; 501 counts as 4xx",
    labelNames: ["class"],
    registers,
  });
  for (const kind of ["2xx", "3xx", "4xx", "5xx"]) responses.inc({ class: kind }, 0);
  return {
    register,
    responses,
    invalidInput: new Counter({
      name: "ml_invalid_input_total",
      help: "Inputs that were refused, by reason",
      labelNames: ["model", "code"],
      registers,
    }),
    dedup: new Counter({
      name: "ml_dedup_total",
      help: "Submissions that could be identical to others: hit (from the cache), join (to one on its way), miss",
      labelNames: ["model", "outcome"],
      registers,
    }),
    cacheHits: new Counter({
      name: "ml_model_cache_hits_total",
      help: "Predictions that were answered from the cache",
      labelNames: ["model", "version"],
      registers,
    }),
    cacheMisses: new Counter({
      name: "ml_model_cache_misses_total",
      help: "Cacheable predictions not found in the cache",
      labelNames: ["model", "version"],
      registers,
    }),
    shed,
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
