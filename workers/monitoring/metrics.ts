import { webhookEvents } from "@millrace/shared/predictions/delivery.js";
import { failureCodes } from "@millrace/shared/service/failure-codes.js";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

const latencyBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** A worker's Prometheus metrics; no label holds an owner or an id. */
export function createWorkerMetrics() {
  const register = new Registry();
  const registers = [register];
  collectDefaultMetrics({ register });
  const deliveries = new Counter({
    name: "ml_webhook_attempt_total",
    help: "Tries of webhook deliveries, by event and outcome",
    labelNames: ["event", "outcome"],
    registers,
  });
  // From 0, because an alert cannot see the rise of a counter that begins with 1.
  for (const event of Object.values(webhookEvents)) deliveries.inc({ event, outcome: "given_up" }, 0);
  const locksLost = new Counter({
    name: "ml_job_lock_lost_total",
    help: "Locks of held jobs that were not renewed in time, by kind of job; other workers run these jobs again",
    labelNames: ["kind"],
    registers,
  });
  for (const kind of ["prediction", "chunk", "delivery", "redrive"]) locksLost.inc({ kind }, 0);
  const predictions = new Counter({
    name: "ml_prediction_total",
    help: "Predictions that became final on this worker, by status",
    labelNames: ["model", "version", "status"],
    registers,
  });
  const bulkRows = new Counter({
    name: "ml_bulk_rows_total",
    help: "Rows of batches finished on this worker, by status",
    labelNames: ["model", "version", "status"],
    registers,
  });
  const failures = new Counter({
    name: "ml_failure_total",
    help: "Predictions and rows of batches that failed on this worker, by code",
    labelNames: ["model", "version", "work", "code"],
    registers,
  });
  return {
    register,
    locksLost,
    predictions,
    bulkRows,
    failures,
    /**
     * Begins the counters of a version with 0: an alert cannot see the rise of a counter that begins with 1, and a
     * panel without a value looks broken.
     */
    beginVersion(model: string, version: string) {
      for (const status of ["succeeded", "failed", "canceled", "expired"])
        predictions.inc({ model, version, status }, 0);
      for (const status of ["succeeded", "failed"]) bulkRows.inc({ model, version, status }, 0);
      for (const work of ["prediction", "row"]) {
        for (const code of failureCodes) failures.inc({ model, version, work, code }, 0);
      }
    },
    latency: new Histogram({
      name: "ml_prediction_latency_seconds",
      help: "Latency of succeeded predictions: queue (created to first run), inference (ONNX run), total",
      labelNames: ["model", "stage"],
      buckets: latencyBuckets,
      registers,
    }),
    confidence: new Histogram({
      name: "ml_prediction_confidence",
      help: "Probability of the chosen label of a classifier",
      labelNames: ["model"],
      buckets: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1],
      registers,
    }),
    batchRows: new Histogram({
      name: "ml_batch_rows",
      help: "Rows of each run that was sent to a slot",
      labelNames: ["model"],
      buckets: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
      registers,
    }),
    retries: new Counter({
      name: "ml_prediction_retry_total",
      help: "Failed attempts with a retry, by reason",
      labelNames: ["model", "code"],
      registers,
    }),
    redriven: new Counter({
      name: "ml_prediction_redriven_total",
      help: "Failed predictions accepted anew by redrives",
      labelNames: ["model"],
      registers,
    }),
    slotDeaths: new Counter({
      name: "ml_slot_death_total",
      help: "Inference processes that ended unexpectedly",
      registers,
    }),
    shadowRuns: new Counter({
      name: "ml_shadow_total",
      help: "Runs of shadow versions by outcome: agree, differ, failed, dropped",
      labelNames: ["model", "version", "shadow", "outcome"],
      registers,
    }),
    shadowDifference: new Histogram({
      name: "ml_shadow_score_difference",
      help: "Largest difference between a number in the shadow version's output and in the caller's",
      labelNames: ["model", "version", "shadow"],
      buckets: [0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 10, 100],
      registers,
    }),
    /** Registers `ml_slots`, which is read at each scrape. */
    tellSlots(read: () => Record<"configured" | "alive" | "busy", number>) {
      new Gauge({
        name: "ml_slots",
        help: "Inference processes of this worker: configured, alive, busy",
        labelNames: ["state"],
        registers,
        collect() {
          for (const [state, count] of Object.entries(read())) this.set({ state }, count);
        },
      });
    },
    deliveries,
    deliveryLatency: new Histogram({
      name: "ml_webhook_delivery_seconds",
      help: "Time from an event to the delivery of its webhook",
      buckets: latencyBuckets,
      registers,
    }),
    joining: new Gauge({
      name: "ml_joining",
      help: "1 for each version whose inputs may share a run on this worker, else 0",
      labelNames: ["model", "version"],
      registers,
    }),
    misfits: new Counter({
      name: "ml_joining_misfit_total",
      help: "Runs whose outputs were not one per row, after which the version's inputs share no run",
      labelNames: ["model", "version"],
      registers,
    }),
    modelLoaded: new Gauge({
      name: "ml_model_loaded",
      help: "1 for each version that this worker serves, 0 for each that it failed to load",
      labelNames: ["model", "version"],
      registers,
    }),
  };
}

export type WorkerMetrics = ReturnType<typeof createWorkerMetrics>;
