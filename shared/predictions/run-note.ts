/**
 * Record of a run, written to Redis before the run starts, because a crash of the slot may take the worker with it. It
 * is removed when the run ends. A job taken while its note remains was in a run whose worker died.
 */
export interface RunNote {
  startedAt: number;
  attempt: number;
  /** Whether it was the only input of the run, so that the crash can be attributed to it. */
  alone: boolean;
  worker: string;
  /** The job's lock token. A worker that has lost the lock writes no note. */
  token?: string;
}

/** A note as it is stored: its columns, without the token. */
export const encodeNote = (note: RunNote): string =>
  `${note.startedAt}|${note.attempt}|${note.alone ? 1 : 0}|${note.worker}`;

export function decodeNote(text: string): RunNote {
  const [startedAt, attempt, alone, worker = ""] = text.split("|");
  return { startedAt: Number(startedAt), attempt: Number(attempt), alone: alone === "1", worker };
}

/** Lua patterns for a stored note: one that matches a note of a run alone, and one that yields the worker. */
export const notePatterns = { noteAlone: "^%d+|%d+|1|", noteWorker: "|([^|]*)$" } as const;
