import { webhookBodyStart } from "../../predictions/delivery.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { number, text } from "../lua/fields.js";

const script = defineScript({
  name: "millraceCancelBatch",
  file: "batches/cancel-batch",
  keys: { batch: text("The batch.") },
  fields: {
    id: text("Of the batch."),
    nowMs: number("When it ends."),
    base: text("What the model's own keys begin with."),
    resultTtlMs: number("The result time."),
    webhookQueue: text("What the keys of the model's queue of deliveries begin with."),
    noticeChannel: text("The channel of an API without its id."),
    bodyStart: text("The body of the webhook up to its data."),
  },
  whenFull: true,
});

/** What the end of a batch leads to. */
export interface BatchEndSettings {
  resultTtlMs: number;
  channelPrefix: string;
}

/**
 * Ends a batch as canceled: what is done is kept, the rest is dropped. Resolves to its JSON, or null where it was
 * final.
 */
export async function cancelBatch(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  { channelPrefix, resultTtlMs }: BatchEndSettings,
): Promise<string | null> {
  const nowMs = Date.now();
  const json = await script.run(redis, {
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
  return json as string | null;
}
