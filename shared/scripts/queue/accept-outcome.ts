/**
 * Outcome of a submission. `queued`: as a new job; `joined`: to an identical prediction that is not final; `cached`:
 * nothing is written yet, `outputJson` is the answer; `replayed`: this key was used before for the same body;
 * `mismatch`: for another body; `full`: a queue limit is reached.
 */
export type AcceptOutcome =
  | { kind: "queued"; position: number }
  | { kind: "joined"; id: string }
  | { kind: "cached"; outputJson: string }
  | { kind: "replayed"; id: string; joined: boolean }
  | { kind: "mismatch" }
  | { kind: "gone" }
  | ({ kind: "full" } & FullQueue);

/** The exceeded limit, of the whole queue or of the owner's own part. */
export interface FullQueue {
  unit: "jobs" | "rows" | "bytes";
  whose: "all" | "own";
  held: number;
  /** Its number of jobs, and the rate of starts in the whole queue, in jobs a second; 0 without recent starts. */
  jobs: number;
  perSecond: number;
}

/** The step's answer for a prediction. */
export type AcceptAnswer = [kind: AcceptOutcome["kind"], value: never, ...more: never[]];

/** Reads an answer of the step. */
export function acceptOutcome([kind, value, ...more]: AcceptAnswer): AcceptOutcome {
  if (kind === "queued") return { kind, position: value };
  if (kind === "joined") return { kind, id: value };
  if (kind === "replayed") return { kind, ...decodeReplayed(value) };
  if (kind === "cached") return { kind, outputJson: value };
  if (kind !== "full") return { kind };
  const [whose, held, jobs, perSecond] = more as unknown as ["all" | "own", number, number, string];
  return { kind, unit: value, whose, held, jobs, perSecond: Number(perSecond) };
}

/** Reads the value of an idempotency key, after the hash: an id, with `|j` for a joined submission. */
export function decodeReplayed(text: string): { id: string; joined: boolean } {
  return { id: text.replace("|j", ""), joined: text.endsWith("|j") };
}
