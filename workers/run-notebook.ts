import type { RedisClient } from "@millrace/shared/connect-redis.js";
import { type ModelKeys, noticeChannel } from "@millrace/shared/keys.js";
import type { Logger } from "@millrace/shared/log.js";
import { deliverStarted, webhookBody } from "@millrace/shared/scripts/deliveries.js";
import { forgetRun, noteRun, type RunNote } from "@millrace/shared/scripts/run-notes.js";

/** Writes down in Redis what slots are given; see `shared/scripts/run-notes.ts` for why. */
export interface RunNotebook {
  /**
   * To be called before the run is sent to its slot; all notes of one turn go out as one command. `predictionJson` gives
   * the prediction as it stands now, for webhooks that tell of the start. Resolves when those are on their way.
   */
  note(id: string, note: RunNote, predictionJson: () => string): Promise<void>;
  forget(id: string): Promise<void>;
}

export function createRunNotebook(redis: RedisClient, keys: ModelKeys, keyPrefix: string, log: Logger): RunNotebook {
  let notes = new Map<string, RunNote>();
  let texts = new Map<string, () => string>();
  let flushed: Promise<void> = Promise.resolve();

  const flush = async () => {
    const [batch, json] = [notes, texts];
    notes = new Map();
    texts = new Map();
    try {
      for (const id of await noteRun(redis, keys, batch, noticeChannel(keyPrefix, ""))) {
        const { startedAt } = batch.get(id) as RunNote;
        const body = webhookBody("prediction.started", startedAt, (json.get(id) as () => string)());
        await deliverStarted(redis, keys, id, body);
      }
    } catch (error) {
      // Without its note a job that kills slot and worker together is only blamed later; it is no reason not to run.
      log.warn("a run could not be noted", { error });
    }
  };
  return {
    note(id, note, predictionJson) {
      if (notes.size === 0) flushed = Promise.resolve().then(flush);
      notes.set(id, note);
      texts.set(id, predictionJson);
      return flushed;
    },
    async forget(id) {
      await forgetRun(redis, keys, [id]);
    },
  };
}
