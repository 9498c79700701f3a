import type { WorkerConfig } from "@millrace/shared/config/worker-config.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys, registryKey } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { roomIn, type StoreMarker } from "@millrace/shared/redis/store-marker.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Tracing } from "@millrace/shared/service/tracing.js";
import type { Worker } from "bullmq";
import type { LockLosses } from "../monitoring/lock-losses.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { StockingWorker } from "../queue/stocking-worker.js";
import { createWebhookSender } from "./deliver-webhook.js";
import { delayBeforeTry } from "./delivery-delay.js";
import { HostGate } from "./host-gate.js";
import { DeliveryFailedError, type DeliveryJob, processDelivery, traceDeliveries } from "./process-delivery.js";

export interface ServingDeliveries {
  close(): Promise<void>;
}

const lookForModelsEveryMs = 1000;
/** Most concurrent tries; many, because one that hangs for 10 s costs only a socket and the renewal of a lock. */
const strangersAtOnce = 800;
const failingAtOnce = 200;
/** Places that unproven hosts leave to others. */
const triesAtOnce = strangersAtOnce + failingAtOnce + 400;
const triesPerHost = 128;

/**
 * Takes the deliveries of every model that was ever announced or will be. They have queues of their own, so that a slow
 * receiver never delays an inference.
 */
export async function startDeliveries(options: {
  redis: RedisClient;
  config: WorkerConfig;
  metrics: WorkerMetrics;
  lockLosses: LockLosses;
  clock: Clock;
  marker: Pick<StoreMarker, "complaint">;
  log: Logger;
  tracing: Tracing | null;
}): Promise<ServingDeliveries> {
  const { clock, config, lockLosses, log, marker, metrics, redis, tracing } = options;
  const { deliveryDeadlineMs: deadlineMs, hostPauseMs: pauseMs } = config.timing;
  const { webhookAllowances: allow, webhookSecrets: secrets } = config;
  const sender = createWebhookSender({ secrets, allow, deadlineMs, clock });
  const gate = new HostGate({ strangersAtOnce, failingAtOnce, perHost: triesPerHost, pauseMs });
  const workers = new Map<string, Worker<unknown, string>>();
  const delays = config.webhookRetryDelaysMs;

  const serve = (model: string) => {
    const keys = modelKeys(config.keyPrefix, model);
    const process = processDelivery({
      redis,
      keys,
      sender: tracing === null ? sender : traceDeliveries(tracing, redis, keys, sender),
      gate,
      retries: delays.length,
      resultTtlMs: config.resultTtlSeconds * 1000,
      metrics,
      clock,
      log,
    });
    class DeliveryWorker extends StockingWorker<string> {
      protected override createJob(raw: Parameters<Worker["createJob"]>[0], id: string) {
        const job = super.createJob(raw, id);
        job.opts.attempts = delays.length + 1;
        job.opts.backoff = { type: "custom" };
        return job;
      }
    }
    const worker: DeliveryWorker = new DeliveryWorker(
      keys.webhookQueueName,
      keys.webhookQueue,
      (job, token) => process(job as DeliveryJob, token as string, () => worker.holds(job)),
      redis,
      {
        prefix: keys.queuePrefix,
        concurrency: triesAtOnce,
        onLocksLost: (count) => lockLosses("delivery", count),
        timing: config.timing,
        mayTake: () => roomIn(marker),
        clock,
        settings: {
          backoffStrategy: (attemptsMade, _type, fault) =>
            delayBeforeTry(delays, attemptsMade, fault instanceof DeliveryFailedError ? fault.retryAfterMs : null),
        },
      },
    );
    worker.on("error", (error) => log.warn("delivery queue error", { model, error }));
    workers.set(model, worker);
  };

  const look = async () => {
    for (const model of await redis.hkeys(registryKey(config.keyPrefix))) if (!workers.has(model)) serve(model);
  };
  await look();
  const timer = setInterval(() => {
    look().catch((error: Error) => log.warn("models not read", { error }));
  }, lookForModelsEveryMs);

  let closing: Promise<void> | null = null;
  const closeAll = async () => {
    clearInterval(timer);
    await Promise.all([...workers.values()].map((worker) => worker.close()));
    sender.close();
  };
  return {
    close: () => {
      closing ??= closeAll();
      return closing;
    },
  };
}
