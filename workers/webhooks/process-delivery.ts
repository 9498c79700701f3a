import { batchTraceField } from "@millrace/shared/predictions/batch.js";
import { deliveryOfJob, webhookEvents } from "@millrace/shared/predictions/delivery.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { type Attempt, type Delivery, noteAttempt, readDelivery } from "@millrace/shared/scripts/deliveries.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Tracing } from "@millrace/shared/service/tracing.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { DelayedError, UnrecoverableError } from "../queue/bullmq.js";
import { AttemptFailedError } from "../queue/stocking-worker.js";
import type { DeliveryAnswer, WebhookSender } from "./deliver-webhook.js";
import type { HostGate } from "./host-gate.js";

/** A failed try with a next one; the backoff reads its delay. */
export class DeliveryFailedError extends AttemptFailedError {
  readonly retryAfterMs: number | null;

  constructor(message: string, retryAfterMs: number | null) {
    super(message);
    this.name = "DeliveryFailedError";
    this.retryAfterMs = retryAfterMs;
  }
}

/** The part of a BullMQ job that is used here. */
export interface DeliveryJob {
  id?: string | undefined;
  timestamp: number;
  attemptsMade: number;
  moveToDelayed(timestamp: number, token?: string): Promise<unknown>;
}

export interface ProcessDeliveryOptions {
  redis: RedisClient;
  keys: ModelKeys;
  sender: Pick<WebhookSender, "send">;
  gate: HostGate;
  /** Delays before the tries that follow the first, in ms. */
  retries: number;
  resultTtlMs: number;
  metrics: WorkerMetrics;
  clock: Clock;
  log: Logger;
}

/**
 * The processor of a delivery's job: one try, noted before the job completes. A 2xx ends it as delivered, a 410 as
 * failed. `isHeld`: whether the job's lock is sure to be held still.
 */
export function processDelivery(options: ProcessDeliveryOptions) {
  const { clock, gate, keys, metrics, redis, sender } = options;

  return async (job: DeliveryJob, token: string, isHeld: () => boolean = () => true): Promise<string> => {
    const delivery = await readDelivery(redis, keys, deliveryOfJob(job.id as string));
    if (delivery === null) return "forgotten";
    // The previous try may have been noted by a worker that died before the job completed.
    if (delivery.state !== "pending") return `${delivery.state} before`;
    const body = await redis.hget(keys.webhookBody(delivery.prediction, delivery.event), "body");
    if (body === null) return "forgotten";
    const place = await gate.enter({ owner: delivery.owner, host: hostOf(delivery.url) });
    if ("waitMs" in place) {
      // The receiver is not called, so no try is counted.
      await job.moveToDelayed(clock.now() + place.waitMs * (1 + Math.random() / 4), token);
      throw new DelayedError();
    }
    if (!isHeld()) {
      // Another worker may have taken it by now; it would be sent twice.
      gate.leave(place, "unused");
      throw new DelayedError();
    }
    let answer: DeliveryAnswer | null = null;
    try {
      answer = await sender.send({ id: delivery.id, url: delivery.url, body });
      return await settle(job, delivery, answer);
    } finally {
      // Only now, because a try that is answered and not yet noted would be sent again too.
      gate.leave(place, answer?.status != null && answer.status < 500 ? answer.durationMs : null);
    }
  };

  async function settle(job: DeliveryJob, delivery: Delivery, answer: DeliveryAnswer): Promise<string> {
    const good = answer.error === null;
    const ends = good || answer.status === 410 || job.attemptsMade >= options.retries;
    const state = good ? "delivered" : ends ? "failed" : "pending";
    const attempt: Attempt = {
      at: new Date(clock.now()).toISOString(),
      status: answer.status,
      duration_ms: answer.durationMs,
      error: answer.error,
      response: answer.response,
    };
    await noteAttempt(redis, keys, delivery, attempt, state, options.resultTtlMs);
    metrics.deliveries.inc({ event: delivery.event, outcome: good ? "delivered" : ends ? "given_up" : "failed" });
    if (good) {
      metrics.deliveryLatency.observe(Math.max(0, clock.now() - delivery.createdAt) / 1000);
      return "delivered";
    }
    options.log.info("webhook not delivered", {
      delivery_id: delivery.id,
      prediction_id: delivery.prediction,
      status: answer.status,
      error: answer.error,
      ends,
    });
    if (ends) throw new UnrecoverableError(answer.error as string);
    throw new DeliveryFailedError(answer.error as string, answer.retryAfterMs);
  }
}

function hostOf(url: string): string {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
}

/** A span for each try of a webhook, in the trace of the request that submitted the work. */
export function traceDeliveries(
  tracing: Tracing,
  redis: RedisClient,
  keys: ModelKeys,
  sender: Pick<WebhookSender, "send">,
): Pick<WebhookSender, "send"> {
  return {
    async send(message) {
      const { data, type } = JSON.parse(message.body) as { type: string; data: { id: string } };
      const ofBatch = type === webhookEvents.batchCompleted;
      // A trace is told, if it can be; no delivery waits or fails for it.
      const found = ofBatch ? redis.hget(keys.batch(data.id), batchTraceField) : redis.get(keys.trace(data.id));
      const parent = (await found.catch(() => null)) ?? undefined;
      const attributes = { "millrace.prediction_id": data.id, "millrace.delivery_id": message.id };
      const span = tracing.start(`webhook ${type}`, { kind: "client", parent, attributes });
      const answer = await sender.send(message);
      span.end({ fault: answer.error, attributes: { "http.response.status_code": answer.status ?? 0 } });
      return answer;
    },
  };
}
