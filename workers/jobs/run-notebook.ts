import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { type ModelKeys, noticeChannel } from "@millrace/shared/redis/keys.js";
import { deliverStarted, webhookBody } from "@millrace/shared/scripts/deliveries.js";
import { forgetRun, noteRun, type RunNote } from "@millrace/shared/scripts/predictions/run-notes.js";
import { joinCalls } from "@millrace/shared/service/join-turn.js";
import type { Logger } from "@millrace/shared/service/log.js";

/**
 * Writes down in Redis what slots are given; see `shared/scripts/predictions/run-notes.ts` for why. A first run is noted only once it
 * has lasted 5 ms, which most never do: a job that takes its worker down sooner than that comes back, and from the
 * second run on every one is noted before it begins, so that blame is found one death later.
 */
export interface RunNotebook {
  /**
   * To be called before the run is sent to its slot; all notes of one turn go out as one command. `predictionJson` gives
   * the prediction as it stands now, for webhooks that tell of the start. Resolves when those are on their way.
   */
  note(id: string, note: RunNote, predictionJson: () => string): Promise<void>;
  /** As `note`, but only if the run has not ended by then. */
  noteLater(id: string, note: RunNote, predictionJson: () => string): void;
  /** The run has ended, so that a note that is not written yet never will be. */
  ended(id: string): void;
  /** Takes a note back. */
  forget(id: string): Promise<void>;
}

interface Entry {
  note: RunNote;
  predictionJson: () => string;
}

const laterMs = 5;

export function createRunNotebook(redis: RedisClient, keys: ModelKeys, keyPrefix: string, log: Logger): RunNotebook {
  const later = new Map<string, Entry & { dueAt: number }>();
  let scheduled = false;

  const write = async (batch: ReadonlyMap<string, Entry>) => {
    try {
      const notes = new Map([...batch].map(([id, { note }]) => [id, note]));
      for (const id of await noteRun(redis, keys, notes, noticeChannel(keyPrefix, ""))) {
        const { note, predictionJson } = batch.get(id) as Entry;
        await deliverStarted(redis, keys, id, webhookBody("prediction.started", note.startedAt, predictionJson()));
      }
    } catch (error) {
      // Without its note a job that kills slot and worker together is only blamed later; it is no reason not to run.
      log.warn("a run could not be noted", { error });
    }
  };
  const noteNow = joinCalls<{ id: string } & Entry, void>(
    async (asked) => {
      await write(new Map(asked.map((entry) => [entry.id, entry])));
      return asked.map(() => undefined);
    },
    { moment: queueMicrotask },
  );
  const writeDue = () => {
    scheduled = false;
    const at = performance.now();
    const due = new Map<string, Entry>();
    for (const [id, entry] of later) {
      // In order of time, as they came.
      if (entry.dueAt > at) break;
      later.delete(id);
      due.set(id, entry);
    }
    if (due.size > 0) void write(due);
    if (later.size > 0) schedule();
  };
  const schedule = () => {
    if (scheduled) return;
    scheduled = true;
    setTimeout(writeDue, laterMs);
  };

  return {
    note: (id, note, predictionJson) => noteNow({ id, note, predictionJson }),
    noteLater(id, note, predictionJson) {
      later.set(id, { note, predictionJson, dueAt: performance.now() + laterMs });
      schedule();
    },
    ended(id) {
      later.delete(id);
    },
    async forget(id) {
      later.delete(id);
      await forgetRun(redis, keys, [id]);
    },
  };
}
