import type { RedisClient } from "../../redis/connect-redis.js";
import { entryMarks } from "../../redis/key-names.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { flag, optional, text } from "../lua/fields.js";

const script = defineScript({
  name: "millraceWatch",
  file: "followers/watch",
  keys: {
    interest: text("Watchers and followers of the prediction."),
    starts: text("Predictions with watchers of their start."),
    result: optional(text("The prediction's result key, for predictions that may be final.")),
  },
  fields: {
    entry: text("The watcher's entry."),
    id: text("The prediction's id."),
    start: flag("Whether to notify of the start, too."),
  },
  whenFull: true,
});

/**
 * Registers an API for the notice of a prediction's end, and of its start if `start` is set; lasts a day. Nothing is
 * registered for a prediction whose `result` exists, since no step would remove the entry.
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
