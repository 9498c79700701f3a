/**
 * What became of a submission: `queued` anew; `joined` to an identical one that is not final; `cached`: nothing was
 * written yet, `outputJson` is the answer; `replayed`: this key was used for the same body before; `mismatch`: for
 * another body; `full`: there is no room.
 */
export type AcceptOutcome =
  | { kind: "queued"; position: number }
  | { kind: "joined"; id: string }
  | { kind: "cached"; outputJson: string }
  | { kind: "replayed"; id: string; joined: boolean }
  | { kind: "mismatch" }
  | { kind: "gone" }
  | ({ kind: "full" } & FullQueue);

/** What there is too much of, in the whole queue or of the owner's own. */
export interface FullQueue {
  unit: "jobs" | "rows" | "bytes";
  whose: "all" | "own";
  held: number;
  /** The jobs that make it up, and how many of the queue were begun a second lately; 0 where nothing was. */
  jobs: number;
  perSecond: number;
}

/** What the step answers for a prediction. */
export type AcceptAnswer = [kind: AcceptOutcome["kind"], value: never, ...more: never[]];

/** What an answer of the step says. */
export function acceptOutcome([kind, value, ...more]: AcceptAnswer): AcceptOutcome {
  if (kind === "queued") return { kind, position: value };
  if (kind === "joined") return { kind, id: value };
  if (kind === "replayed") return { kind, ...decodeReplayed(value) };
  if (kind === "cached") return { kind, outputJson: value };
  if (kind !== "full") return { kind };
  const [whose, held, jobs, perSecond] = more as unknown as ["all" | "own", number, number, string];
  return { kind, unit: value, whose, held, jobs, perSecond: Number(perSecond) };
}

/** What is kept under an idempotency key, after the hash: an id, and `|j` where that submission was joined. */
export function decodeReplayed(text: string): { id: string; joined: boolean } {
  return { id: text.replace("|j", ""), joined: text.endsWith("|j") };
}
