import { encodeNote, type RunNote } from "../../predictions/run-note.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, text } from "../lua/fields.js";

const noteScript = defineScript({
  name: "millraceNoteRun",
  file: "predictions/note-run",
  keys: { running: text("Run notes by prediction."), starts: text("Predictions with watchers of their start.") },
  fields: {
    base: text("Prefix of the model's own keys."),
    noticeChannel: text("Prefix of the APIs' notice channels; an API's id follows."),
    queue: text("Prefix of the keys of the model's queue."),
  },
  each: { id: text("The prediction's id."), token: text("Its job's lock token."), note: text("The note.") },
  answer: answers<string[]>("The ids with watchers of their start."),
  whenFull: true,
});

/**
 * Records the start of a run, notifies watching APIs, and resolves to the ids with watchers of their start. One
 * command, so that the network stack holds it whole even if this process dies at once.
 */
export async function noteRun(
  redis: RedisClient,
  keys: ModelKeys,
  notes: ReadonlyMap<string, RunNote>,
  channelPrefix: string,
): Promise<string[]> {
  const { base, queue, running, starts } = keys;
  return noteScript.run(redis, {
    keys: { running, starts },
    fields: { base, noticeChannel: channelPrefix, queue },
    each: [...notes].map(([id, note]) => ({ id, token: note.token ?? "", note: encodeNote(note) })),
  });
}

/** Removes the notes of jobs that return to the queue unharmed. */
export function forgetRun(redis: RedisClient, keys: ModelKeys, ids: readonly string[]): Promise<unknown> {
  return redis.hdel(keys.running, ...ids);
}

/** Counts a death once: the note is removed with it. */
const historyScript = defineScript({
  name: "millraceHistory",
  file: "predictions/read-history",
  keys: {
    running: text("Run notes by prediction."),
    deaths: text("Deaths of slot and worker together during a run of it alone, by prediction."),
    result: text("The prediction's result."),
  },
  fields: { id: text("The prediction's id.") },
  answer: answers<[final: 0 | 1, note: string | null, deaths: string | null]>(
    "Whether its result is there, its note and its deaths.",
  ),
  whenFull: true,
});

/** The history of a job that was taken before. */
export interface JobHistory {
  /** Its final state is already written; nothing is left to run. */
  final: boolean;
  /** It was in a run that never ended. */
  diedRunning: boolean;
  /** Number of deaths of slot and worker together while it ran alone. */
  deaths: number;
}

/** Reads the history of a job that BullMQ returns a second time. */
export async function readHistory(redis: RedisClient, keys: ModelKeys, id: string): Promise<JobHistory> {
  const { deaths: deathsKey, running } = keys;
  const [final, note, deaths] = await historyScript.run(redis, {
    keys: { running, deaths: deathsKey, result: keys.result(id) },
    fields: { id },
  });
  return { final: final === 1, diedRunning: note !== null, deaths: Number(deaths ?? 0) };
}
