import { webhookBodyStart } from "../../predictions/delivery.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, type Fields, number, text, type ValuesOf } from "../lua/fields.js";

const largestNoticeBytes = 65_536;

/** Arguments of the steps that tell of a prediction's end, as read by `tell-followers.lua`. */
export const tellFields = {
  base: text("Prefix of the model's own keys."),
  noticeChannel: text("Prefix of the APIs' notice channels; an API's id follows."),
  largestNoticeBytes: number("Size up to which results are sent with notices."),
  nowMs: number("Time of the end."),
  webhookQueue: text("Prefix of the keys of the model's queue of deliveries."),
  startedStart: text("The body of the webhook for a start, up to its data."),
  completedStart: text("The body of the webhook for an end, up to its data."),
} satisfies Fields;

const script = defineScript({
  name: "millraceTellMore",
  file: "followers/tell-more",
  keys: {
    ending: text("Final predictions with followers who are still to be told."),
    result: text("The prediction's result."),
  },
  fields: { ...tellFields, id: text("The prediction's id.") },
  answer: answers<0 | 1>("1 where there are still more."),
  whenFull: true,
});

export interface TellSettings {
  channelPrefix: string;
}

/** The values of `tellFields`. */
export const tellFieldsOf = (
  { base, webhookQueue }: ModelKeys,
  { channelPrefix }: TellSettings,
  nowMs: number,
): ValuesOf<typeof tellFields> => ({
  base,
  noticeChannel: channelPrefix,
  largestNoticeBytes,
  nowMs,
  webhookQueue,
  startedStart: webhookBodyStart("prediction.started", nowMs),
  completedStart: webhookBodyStart("prediction.completed", nowMs),
});

/**
 * Tells the followers of a final prediction who are still to be told, some at a time, so that no step takes long
 * however many they are. May be called at any time and by several processes: each follower is told once.
 */
export async function tellFollowers(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  settings: TellSettings & { nowMs: number },
): Promise<void> {
  for (;;) {
    const fields = { ...tellFieldsOf(keys, settings, settings.nowMs), id };
    if ((await script.run(redis, { keys: { ending: keys.ending, result: keys.result(id) }, fields })) === 0) return;
  }
}
