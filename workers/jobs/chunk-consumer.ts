import type { WorkerTiming } from "@millrace/shared/config/timing.js";
import { batchOfChunkJob } from "@millrace/shared/predictions/batch.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Worker } from "bullmq";
import { StockingWorker } from "../queue/stocking-worker.js";
import { type ChunkJob, hasOutputs, type processChunk } from "./process-chunk.js";

const retryDelayMs = 1000;

/** Takes the jobs of one model's batch chunks. */
export function createChunkConsumer(options: {
  keys: ModelKeys;
  redis: RedisClient;
  concurrency: number;
  process: ReturnType<typeof processChunk>;
  /** Number of jobs that may be taken now, apart from the limit of concurrency. */
  mayTake(): number;
  /** Told how many locks of jobs were lost to other workers. */
  onLocksLost(count: number): void;
  timing: WorkerTiming;
  clock: Clock;
  log: Logger;
}): Worker<unknown, string> {
  const { keys, log, redis } = options;

  class ChunkWorker extends StockingWorker<string> {
    protected override createJob(raw: Parameters<Worker["createJob"]>[0], id: string) {
      const job = super.createJob(raw, id);
      // A failure here is never the chunk's own, which would be an output; so it is tried until it succeeds.
      job.opts.attempts = Number.MAX_SAFE_INTEGER;
      job.opts.backoff = { type: "fixed", delay: retryDelayMs };
      return job;
    }
  }

  const worker = new ChunkWorker(
    keys.batchQueueName,
    keys.batchQueue,
    (job, token, lock) => options.process(job as ChunkJob, token, lock),
    redis,
    {
      prefix: keys.queuePrefix,
      autorun: false,
      concurrency: options.concurrency,
      mayTake: options.mayTake,
      onLocksLost: options.onLocksLost,
      timing: options.timing,
      clock: options.clock,
      proofOf: ({ id }, words) => (hasOutputs(words) ? keys.batchResults(batchOfChunkJob(id as string)) : null),
    },
  );
  worker.on("error", (error) => log.warn("batch queue error", { queue: keys.batchQueueName, error }));
  return worker;
}
