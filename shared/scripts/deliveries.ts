import type { RedisClient } from "../redis/connect-redis.js";
import type { ModelKeys } from "../redis/keys.js";
import { defineScript } from "./lua/define-script.js";
import { number, text, unnamed } from "./lua/fields.js";

const startedScript = defineScript({
  name: "millraceStarted",
  file: "deliver-started",
  keys: { delivery: unnamed(text("Tells the slot.")) },
  fields: {
    base: text("Prefix of the model's own keys."),
    webhookQueue: text("Prefix of the keys of the model's queue of deliveries."),
    id: text("The prediction's id."),
    body: text("The webhook's body."),
    nowMs: number("Time of the event."),
  },
  whenFull: true,
});

/** Makes the deliveries that tell of a prediction's start, for those of its followers who want to hear of it. */
export async function deliverStarted(redis: RedisClient, keys: ModelKeys, id: string, bodyJson: string): Promise<void> {
  const { base, webhookQueue } = keys;
  await startedScript.run(redis, {
    keys: { delivery: keys.delivery(id) },
    fields: { base, webhookQueue, id, body: bodyJson, nowMs: Date.now() },
  });
}

/** A delivery as it is kept. */
export interface Delivery {
  id: string;
  owner: string;
  url: string;
  event: string;
  prediction: string;
  createdAt: number;
  state: "pending" | "delivered" | "failed";
  tries: number;
}

/** Reads a delivery; null for one that is not known. */
export async function readDelivery(redis: RedisClient, keys: ModelKeys, id: string): Promise<Delivery | null> {
  const fields = await redis.hgetall(keys.delivery(id));
  if (fields.owner === undefined) return null;
  return {
    id,
    owner: fields.owner,
    url: fields.url ?? "",
    event: fields.event ?? "",
    prediction: fields.prediction ?? "",
    createdAt: Number(fields.created),
    state: fields.state as Delivery["state"],
    tries: Number(fields.tries),
  };
}

/** What a try came to; kept for whoever asks why. */
export interface Attempt {
  at: string;
  status: number | null;
  duration_ms: number;
  error: string | null;
  /** The first bytes of the answer's body, 4 KiB at the most. */
  response: string | null;
}

const deliveryKeys = {
  delivery: text("The delivery."),
  body: text("The body that the deliveries of its event send, and how many of them are open."),
  deliveries: text("All deliveries of its prediction."),
};

const attemptScript = defineScript({
  name: "millraceAttempt",
  file: "note-attempt",
  keys: {
    delivery: deliveryKeys.delivery,
    attempts: text("The delivery's attempts."),
    body: deliveryKeys.body,
    deliveries: deliveryKeys.deliveries,
  },
  fields: {
    attempt: text("The attempt as JSON."),
    state: text("The delivery's state after it."),
    resultTtlMs: number("The result time."),
    base: text("Prefix of the model's own keys."),
  },
  whenFull: true,
});

/** Notes a try and what state it leaves the delivery in. */
export async function noteAttempt(
  redis: RedisClient,
  keys: ModelKeys,
  delivery: Delivery,
  attempt: Attempt,
  state: Delivery["state"],
  resultTtlMs: number,
): Promise<void> {
  await attemptScript.run(redis, {
    keys: {
      delivery: keys.delivery(delivery.id),
      attempts: keys.attempts(delivery.id),
      body: keys.webhookBody(delivery.prediction, delivery.event),
      deliveries: keys.deliveries(delivery.prediction),
    },
    fields: { attempt: JSON.stringify(attempt), state, resultTtlMs, base: keys.base },
  });
}

const redeliverScript = defineScript({
  name: "millraceRedeliver",
  file: "redeliver",
  keys: deliveryKeys,
  fields: {
    owner: text("Name of the caller."),
    id: text("The delivery's id."),
    webhookQueue: text("Prefix of the keys of the model's queue of deliveries."),
    nowMs: number("Time of the request."),
  },
});

/** Sends an ended delivery again, under the same id; `pending`: it is still on its way. */
export async function redeliver(
  redis: RedisClient,
  keys: ModelKeys,
  delivery: Delivery,
  owner: string,
): Promise<"queued" | "pending" | "unknown"> {
  const { event, prediction } = delivery;
  const outcome = await redeliverScript.run(redis, {
    keys: {
      delivery: keys.delivery(delivery.id),
      body: keys.webhookBody(prediction, event),
      deliveries: keys.deliveries(prediction),
    },
    fields: { owner, id: delivery.id, webhookQueue: keys.webhookQueue, nowMs: Date.now() },
  });
  return outcome as "queued" | "pending" | "unknown";
}

/** The delivery that a job of the delivery queue is for. */
export const deliveryOfJob = (jobId: string): string => jobId.replace(/-\d+$/, "");
