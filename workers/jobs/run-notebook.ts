import { webhookBody } from "@millrace/shared/predictions/delivery.js";
import { mostInStep } from "@millrace/shared/predictions/job.js";
import type { RunNote } from "@millrace/shared/predictions/run-note.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { type ModelKeys, noticeChannel } from "@millrace/shared/redis/keys.js";
import { deliverStarted } from "@millrace/shared/scripts/deliveries.js";
import { forgetRun, noteRun } from "@millrace/shared/scripts/predictions/run-notes.js";
import { joinCalls } from "@millrace/shared/service/join-turn.js";
import type { Logger } from "@millrace/shared/service/log.js";

/**
 * Notes runs in Redis; `shared/predictions/run-note.ts` says why. A first run is noted only once it has lasted
 * 5 ms, which most do not. A job that kills its worker sooner comes back, and every later run is noted before it
 * begins, so blame is found one death later.
 */
export interface RunNotebook {
  /**
   * Call it before the run is sent to its slot; the notes of one turn of the event loop go out as one command.
   * `predictionJson` returns the prediction as it is now, for webhooks of the start. Resolves when those are queued.
   */
  note(id: string, note: RunNote, predictionJson: () => string): Promise<void>;
  /** As `note`, but only if the run lasts long enough. */
  noteLater(id: string, note: RunNote, predictionJson: () => string): void;
  /** The run has ended; a note that is not written yet is dropped. */
  ended(id: string): void;
  /** Deletes a note. */
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
      const all = [...batch];
      for (let from = 0; from < all.length; from += mostInStep) {
        const notes = new Map(all.slice(from, from + mostInStep).map(([id, { note }]) => [id, note]));
        for (const id of await noteRun(redis, keys, notes, noticeChannel(keyPrefix, ""))) {
          const { note, predictionJson } = batch.get(id) as Entry;
          await deliverStarted(
            redis,
            keys,
            id,
            webhookBody("prediction.started", note.startedAt, predictionJson()),
            note.startedAt,
          );
        }
      }
    } catch (error) {
      // Without its note a job that kills slot and worker together is blamed later; the run need not wait for that.
      log.warn("run not noted", { error });
    }
  };
  const noteNow = joinCalls<{ id: string } & Entry, void>(
    async (asked) => {
      await write(new Map(asked.map((entry) => [entry.id, entry])));
      return asked.map(() => undefined);
    },
    { schedule: queueMicrotask },
  );
  const writeDue = () => {
    scheduled = false;
    const at = performance.now();
    const due = new Map<string, Entry>();
    for (const [id, entry] of later) {
      // In order of time.
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
