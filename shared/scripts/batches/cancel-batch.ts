import { webhookBodyStart } from "../../predictions/delivery.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, number, text } from "../lua/fields.js";

const script = defineScript({
  name: "millraceCancelBatch",
  file: "batches/cancel-batch",
  keys: { batch: text("The batch.") },
  fields: {
    id: text("The batch's id."),
    nowMs: number("Time of the end."),
    base: text("Prefix of the model's own keys."),
    resultTtlMs: number("The result time."),
    webhookQueue: text("Prefix of the keys of the model's queue of deliveries."),
    noticeChannel: text("Prefix of the APIs' notice channels; an API's id follows."),
    bodyStart: text("The body of the webhook up to its data."),
  },
  answer: answers<string | null>("Its JSON; null if it was final."),
  whenFull: true,
});

/** Settings for the end of a batch. */
export interface BatchEndSettings {
  resultTtlMs: number;
  channelPrefix: string;
}

/**
 * Ends a batch as canceled: finished outputs are kept, the rest is dropped. Resolves to its JSON, or null if it was
 * final.
 */
export async function cancelBatch(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  { channelPrefix, resultTtlMs }: BatchEndSettings,
  nowMs: number,
): Promise<string | null> {
  return script.run(redis, {
    keys: { batch: keys.batch(id) },
    fields: {
      id,
      nowMs,
      base: keys.base,
      resultTtlMs,
      webhookQueue: keys.webhookQueue,
      noticeChannel: channelPrefix,
      bodyStart: webhookBodyStart("batch.completed", nowMs),
    },
  });
}
