import type { RedisClient } from "@millrace/shared/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/keys.js";
import type { Logger } from "@millrace/shared/log.js";
import { forgetRun, noteRun, type RunNote } from "@millrace/shared/scripts/run-notes.js";

/** Writes down in Redis what slots are given; see `shared/scripts/run-notes.ts` for why. */
export interface RunNotebook {
  /** To be called before the run is sent to its slot; all notes of one turn go out as one command. */
  note(id: string, note: RunNote): void;
  forget(id: string): Promise<void>;
}

export function createRunNotebook(redis: RedisClient, keys: ModelKeys, log: Logger): RunNotebook {
  let notes = new Map<string, RunNote>();
  const flush = () => {
    const batch = notes;
    notes = new Map();
    // Without its note a job that kills slot and worker together is only blamed later; it is no reason not to run.
    noteRun(redis, keys, batch).catch((error: Error) => log.warn("a run could not be noted", { error }));
  };
  return {
    note(id, note) {
      if (notes.size === 0) queueMicrotask(flush);
      notes.set(id, note);
    },
    async forget(id) {
      await forgetRun(redis, keys, [id]);
    },
  };
}
