import type { RedisClient } from "../../redis/connect-redis.js";
import { entryMarks } from "../../redis/key-names.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { flag, optional, text } from "../lua/fields.js";

const script = defineScript({
  name: "millraceWatch",
  file: "predictions/watch",
  keys: {
    interest: text("Watchers and followers of the prediction."),
    starts: text("Predictions whose start is awaited."),
    result: optional(text("The prediction's result, where it can be known.")),
  },
  fields: {
    entry: text("The watcher's entry."),
    id: text("The prediction's id."),
    start: flag("Whether the start is to be told, too."),
  },
  whenFull: true,
});

/**
 * Notes that an API is to be told when a prediction ends, and when it starts if `start` says so; lasts a day. Nothing
 * is noted of one that has its `result` already, for nobody would take the note away.
 */
export async function watchPrediction(
  redis: RedisClient,
  keys: Pick<ModelKeys, "interest" | "starts">,
  id: string,
  apiId: string,
  { result, start }: { start: boolean; result?: string },
): Promise<void> {
  await script.run(redis, {
    keys: { interest: keys.interest(id), starts: keys.starts, result: result ?? null },
    fields: { entry: `${entryMarks.watcher}${apiId}`, id, start },
  });
}
