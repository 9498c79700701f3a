import type { WorkerTiming } from "@millrace/shared/config/timing.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { redriveKeys, redrivesName } from "@millrace/shared/redis/keys.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Worker } from "bullmq";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { StockingWorker } from "../queue/stocking-worker.js";
import { processRedrive, type RedriveJob } from "./process-redrive.js";

const slicesAtOnce = 8;
const retryDelayMs = 1000;

/** Takes the slices of redrives, whatever their models: nothing of a model is needed to have its failures accepted anew. */
export function serveRedrives(options: {
  redis: RedisClient;
  keyPrefix: string;
  metrics: WorkerMetrics;
  timing: WorkerTiming;
  log: Logger;
}): { close(): Promise<void> } {
  const { keyPrefix, log, redis } = options;
  const keys = redriveKeys(keyPrefix);
  const process = processRedrive(options);

  class RedriveWorker extends StockingWorker<string> {
    protected override createJob(raw: Parameters<Worker["createJob"]>[0], id: string) {
      const job = super.createJob(raw, id);
      // What fails here is the store, so it is tried until it is done.
      job.opts.attempts = Number.MAX_SAFE_INTEGER;
      job.opts.backoff = { type: "fixed", delay: retryDelayMs };
      job.opts.stackTraceLimit = 1;
      return job;
    }
  }

  const worker = new RedriveWorker(
    redrivesName,
    keys.queue,
    (job, token, lock) => process(job as RedriveJob, token, lock),
    redis,
    { prefix: keys.queuePrefix, concurrency: slicesAtOnce, timing: options.timing },
  );
  worker.on("error", (error) => log.warn("redrive queue trouble", { error }));
  return { close: () => worker.close() };
}
