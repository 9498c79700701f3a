import type { WorkerTiming } from "@millrace/shared/config/timing.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";
import { endedJobData } from "@millrace/shared/predictions/job.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Job, Worker } from "bullmq";
import { StockingWorker } from "../queue/stocking-worker.js";
import { hasResult, type processPrediction } from "./process-prediction.js";

export interface ModelConsumerOptions {
  model: string;
  keys: ModelKeys;
  redis: RedisClient;
  /** Most jobs held at once: running ones and those that wait for a slot. */
  concurrency: number;
  /**
   * The manifest of a version, or of another version of the model where this one is not served here; undefined without
   * any.
   */
  manifestOf(version: string): Pick<Manifest, "attempts" | "backoff_ms"> | undefined;
  process: ReturnType<typeof processPrediction>;
  /** Number of jobs that may be taken now, apart from the limit of concurrency. */
  mayTake(): number;
  /** Told how many locks of jobs were lost to other workers. */
  onLocksLost(count: number): void;
  timing: WorkerTiming;
  clock: Clock;
  log: Logger;
}

const shownPerSecond = 20;

type RawJob = Parameters<Worker<unknown, string>["createJob"]>[0];

/** A job as BullMQ hands it out, and whether its prediction became final before it ran. */
type PredictionBullJob = Job<unknown, string> & { endedEarly: boolean };

/**
 * Takes the jobs of one model. Attempts and backoff come from the manifest at this moment, not from the time of adding,
 * so that the job stays small.
 */
export function createModelConsumer(options: ModelConsumerOptions): Worker<unknown, string> {
  const { log, model } = options;
  const manifestOf = (job: { data: unknown }) => options.manifestOf((job.data as { ver?: string } | null)?.ver ?? "");

  const shown = createShownJobs();

  class PredictionWorker extends StockingWorker<string, PredictionBullJob> {
    protected override createJob(raw: RawJob, id: string): PredictionBullJob {
      const job = super.createJob(raw, id) as PredictionBullJob;
      // An end from outside empties the job.
      job.endedEarly = raw.data === endedJobData;
      job.opts.attempts = manifestOf(job)?.attempts ?? 1;
      job.opts.backoff = { type: "custom" };
      if (!shown()) job.opts.removeOnComplete = true;
      return job;
    }
  }

  const worker = new PredictionWorker(model, options.keys.queue, options.process, options.redis, {
    prefix: options.keys.queuePrefix,
    autorun: false,
    concurrency: options.concurrency,
    mayTake: options.mayTake,
    onLocksLost: options.onLocksLost,
    timing: options.timing,
    clock: options.clock,
    isOver: (job) => job.endedEarly,
    proofOf: ({ id }, words) => (hasResult(words) ? options.keys.result(id as string) : null),
    settings: {
      backoffStrategy: (attemptsMade, _type, _error, job) =>
        (manifestOf(job as PredictionBullJob)?.backoff_ms ?? 1000) * 2 ** (attemptsMade - 1) * (0.5 + Math.random()),
    },
  });
  worker.on("error", (error) => log.warn("queue error", { model, error }));
  return worker;
}

/**
 * The finished jobs that stay visible in the queue page: all of them at an ordinary rate, a sample under load, because
 * keeping a job costs Redis a third of running it. Results do not depend on it.
 */
function createShownJobs(): () => boolean {
  let second = 0;
  let count = 0;
  return () => {
    const now = Math.floor(performance.now() / 1000);
    if (now !== second) {
      second = now;
      count = 0;
    }
    count += 1;
    return count <= shownPerSecond;
  };
}
