import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { text } from "../lua/fields.js";

/**
 * What a slot was given is noted in Redis before it runs, because whatever kills a slot may kill its worker too; the
 * note goes when the run ends. A job that is taken with a note still there was in a run that took its worker down.
 */
export interface RunNote {
  startedAt: number;
  attempt: number;
  /** Whether nothing else was in that run, so that nothing else can be blamed. */
  alone: boolean;
  worker: string;
  /** The job's lock; who has lost it writes no note, for the job is somebody else's by then. */
  token?: string;
}

const encodeNote = (note: RunNote): string => `${note.startedAt}|${note.attempt}|${note.alone ? 1 : 0}|${note.worker}`;

export function decodeNote(text: string): RunNote {
  const [startedAt, attempt, alone, worker = ""] = text.split("|");
  return { startedAt: Number(startedAt), attempt: Number(attempt), alone: alone === "1", worker };
}

const noteScript = defineScript({
  name: "millraceNoteRun",
  file: "predictions/note-run",
  keys: { running: text("Run notes by prediction."), starts: text("Predictions whose start is awaited.") },
  fields: {
    base: text("Prefix of the model's own keys."),
    noticeChannel: text("Prefix of the channels on which APIs are told; an API's id follows."),
    queue: text("Prefix of the keys of the model's queue."),
  },
  each: { id: text("The prediction's id."), token: text("Its job's lock token."), note: text("The note.") },
  whenFull: true,
});

/**
 * Notes that a run begins, tells the APIs that watch for it, and resolves to the ids whose start is awaited. One
 * command, so that the network stack holds it whole even if this process dies at once.
 */
export async function noteRun(
  redis: RedisClient,
  keys: ModelKeys,
  notes: ReadonlyMap<string, RunNote>,
  channelPrefix: string,
): Promise<string[]> {
  const { base, queue, running, starts } = keys;
  const awaited = await noteScript.run(redis, {
    keys: { running, starts },
    fields: { base, noticeChannel: channelPrefix, queue },
    each: [...notes].map(([id, note]) => ({ id, token: note.token ?? "", note: encodeNote(note) })),
  });
  return awaited as string[];
}

/** Takes back the notes of jobs that go back into the queue unharmed. */
export function forgetRun(redis: RedisClient, keys: ModelKeys, ids: readonly string[]): Promise<unknown> {
  return redis.hdel(keys.running, ...ids);
}

/** Counts a death once: the note is taken away with it. */
const historyScript = defineScript({
  name: "millraceHistory",
  file: "predictions/read-history",
  keys: {
    running: text("Run notes by prediction."),
    deaths: text("Deaths of slot and worker together while it ran alone, by prediction."),
    result: text("The prediction's result."),
  },
  fields: { id: text("The prediction's id.") },
  whenFull: true,
});

/** What became of a job that was taken before. */
export interface JobHistory {
  /** Its final state is written already: there is nothing left to run. */
  final: boolean;
  /** It was in a run that never ended. */
  diedRunning: boolean;
  /** How often it was running alone when slot and worker died together. */
  deaths: number;
}

/** Reads the history of a job that BullMQ hands out again. */
export async function readHistory(redis: RedisClient, keys: ModelKeys, id: string): Promise<JobHistory> {
  const { deaths: deathsKey, running } = keys;
  const [final, note, deaths] = (await historyScript.run(redis, {
    keys: { running, deaths: deathsKey, result: keys.result(id) },
    fields: { id },
  })) as [number, string | null, string | null];
  return { final: final === 1, diedRunning: note !== null, deaths: Number(deaths ?? 0) };
}
