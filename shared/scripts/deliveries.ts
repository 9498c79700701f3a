import { webhookEvents } from "../predictions/delivery.js";
import { toldAtOnce } from "../predictions/job.js";
import type { RedisClient } from "../redis/connect-redis.js";
import type { ModelKeys } from "../redis/keys.js";
import { defineScript } from "./lua/define-script.js";
import { answers, number, text, unnamed } from "./lua/fields.js";

const startedScript = defineScript({
  name: "millraceStarted",
  file: "deliver-started",
  keys: { delivery: unnamed(text("Sets the hash slot.")) },
  fields: {
    base: text("Prefix of the model's own keys."),
    webhookQueue: text("Prefix of the keys of the model's queue of deliveries."),
    id: text("The prediction's id."),
    body: text("The webhook's body."),
    from: number("Place of the first entry of those who follow it."),
    nowMs: number("Time of the event."),
  },
  answer: answers<number>("How many entries were read."),
  whenFull: true,
});

/** Makes the deliveries of a prediction's start, for followers that ask for it, some at a time. */
export async function deliverStarted(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  bodyJson: string,
  nowMs: number,
): Promise<void> {
  const { base, webhookQueue } = keys;
  for (let from = 0; ; from += toldAtOnce) {
    const read = await startedScript.run(redis, {
      keys: { delivery: keys.delivery(id) },
      fields: { base, webhookQueue, id, body: bodyJson, from, nowMs },
    });
    if (read < toldAtOnce) return;
  }
}

/** A delivery as stored. */
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

/** Reads a delivery; null for an unknown one. */
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

/** The outcome of a try, kept for the delivery's log. */
export interface Attempt {
  at: string;
  status: number | null;
  duration_ms: number;
  error: string | null;
  /** The first bytes of the response body, at most 4 KiB. */
  response: string | null;
}

const deliveryKeys = {
  delivery: text("The delivery."),
  body: text("The body sent by the deliveries of its event, with the number of open ones."),
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
    started: text("The body of the deliveries of its start."),
    completed: text("The body of the deliveries of its end."),
  },
  fields: {
    attempt: text("The attempt as JSON."),
    state: text("The delivery's state after it."),
    resultTtlMs: number("The result time."),
  },
  whenFull: true,
});

/** Records a try and the delivery's new state. */
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
      started: keys.webhookBody(delivery.prediction, webhookEvents.predictionStarted),
      completed: keys.webhookBody(delivery.prediction, webhookEvents.predictionCompleted),
    },
    fields: { attempt: JSON.stringify(attempt), state, resultTtlMs },
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
  answer: answers<"queued" | "pending" | "unknown">("What became of the request."),
});

/** Sends an ended delivery again, under the same id; `pending`: its schedule has not ended. */
export async function redeliver(
  redis: RedisClient,
  keys: ModelKeys,
  delivery: Delivery,
  owner: string,
  nowMs: number,
): Promise<"queued" | "pending" | "unknown"> {
  const { event, prediction } = delivery;
  return redeliverScript.run(redis, {
    keys: {
      delivery: keys.delivery(delivery.id),
      body: keys.webhookBody(prediction, event),
      deliveries: keys.deliveries(prediction),
    },
    fields: { owner, id: delivery.id, webhookQueue: keys.webhookQueue, nowMs },
  });
}
