import type { WorkerTiming } from "@millrace/shared/config/timing.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Job, Worker } from "bullmq";
import { StockingWorker } from "../queue/stocking-worker.js";
import { hasResult, type processPrediction } from "./process-prediction.js";

export interface ModelConsumerOptions {
  model: string;
  keys: ModelKeys;
  redis: RedisClient;
  /** Jobs held at once: those that run and those that wait for a slot. */
  concurrency: number;
  /** The manifest of a version, or of another of the model where it is not here; undefined where there is none. */
  manifestOf(version: string): Pick<Manifest, "attempts" | "backoff_ms"> | undefined;
  process: ReturnType<typeof processPrediction>;
  /** How many jobs may be taken now, besides what there is room for. */
  mayTake(): number;
  timing: WorkerTiming;
  log: Logger;
}

const shownPerSecond = 20;

type RawJob = Parameters<Worker<unknown, string>["createJob"]>[0];

/** A job as BullMQ hands it out, and whether its prediction was made final before anything ran. */
type PredictionBullJob = Job<unknown, string> & { endedEarly: boolean };

/**
 * Takes the jobs of one model. What BullMQ knows of a job stays small: attempts and backoff come from the manifest at
 * this moment, not from when it was added.
 */
export function createModelConsumer(options: ModelConsumerOptions): Worker<unknown, string> {
  const { log, model } = options;
  const manifestOf = (job: { data: unknown }) => options.manifestOf((job.data as { ver?: string } | null)?.ver ?? "");

  const shown = createShownJobs();

  class PredictionWorker extends StockingWorker<string> {
    protected override createJob(raw: RawJob, id: string): Job<unknown, string> {
      const job = super.createJob(raw, id) as PredictionBullJob;
      // Whatever ends a prediction before a worker does empties its job.
      job.endedEarly = raw.data === "{}";
      job.opts.attempts = manifestOf(job)?.attempts ?? 1;
      job.opts.backoff = { type: "custom" };
      if (!shown()) job.opts.removeOnComplete = true;
      return job;
    }
  }

  const worker = new PredictionWorker(
    model,
    options.keys.queue,
    (job, token, lock) => options.process(job as PredictionBullJob, token, lock),
    options.redis,
    {
      prefix: options.keys.queuePrefix,
      autorun: false,
      concurrency: options.concurrency,
      mayTake: options.mayTake,
      timing: options.timing,
      isOver: (job) => (job as PredictionBullJob).endedEarly,
      proofOf: ({ id }, words) => (hasResult(words) ? options.keys.result(id as string) : null),
      settings: {
        backoffStrategy: (attemptsMade, _type, _error, job) =>
          (manifestOf(job as PredictionBullJob)?.backoff_ms ?? 1000) * 2 ** (attemptsMade - 1) * (0.5 + Math.random()),
      },
    },
  );
  worker.on("error", (error) => log.warn("queue trouble", { model, error }));
  return worker;
}

/**
 * Which finished jobs stay visible in the queue page: all of them at an ordinary pace, a sample in a rush, because
 * keeping one costs Redis a third of what running it does. Results do not depend on it.
 */
function createShownJobs(): () => boolean {
  let second = 0;
  let count = 0;
  return () => {
    const now = Math.floor(Date.now() / 1000);
    if (now !== second) {
      second = now;
      count = 0;
    }
    count += 1;
    return count <= shownPerSecond;
  };
}
