import type { WorkerTiming } from "@millrace/shared/config/timing.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { redriveKeys, redrivesName } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { roomIn, type StoreMarker } from "@millrace/shared/redis/store-marker.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Worker } from "bullmq";
import type { LockLosses } from "../monitoring/lock-losses.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { StockingWorker } from "../queue/stocking-worker.js";
import { processRedrive, type RedriveJob } from "./process-redrive.js";

const slicesAtOnce = 8;
const retryDelayMs = 1000;

/** Takes the slices of redrives of any model: accepting failures anew needs nothing of the model itself. */
export function serveRedrives(options: {
  redis: RedisClient;
  keyPrefix: string;
  metrics: WorkerMetrics;
  lockLosses: LockLosses;
  timing: WorkerTiming;
  clock: Clock;
  marker: Pick<StoreMarker, "complaint">;
  log: Logger;
}): { close(): Promise<void> } {
  const { keyPrefix, log, marker, redis } = options;
  const keys = redriveKeys(keyPrefix);
  const process = processRedrive(options);

  class RedriveWorker extends StockingWorker<string> {
    protected override createJob(raw: Parameters<Worker["createJob"]>[0], id: string) {
      const job = super.createJob(raw, id);
      // A failure here is the store's, so it is tried until it succeeds.
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
    {
      prefix: keys.queuePrefix,
      concurrency: slicesAtOnce,
      onLocksLost: (count) => options.lockLosses("redrive", count),
      timing: options.timing,
      clock: options.clock,
      mayTake: () => roomIn(marker),
    },
  );
  worker.on("error", (error) => log.warn("redrive queue error", { error }));
  return { close: () => worker.close() };
}
