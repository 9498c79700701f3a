import { joinedMark } from "../../predictions/job.js";

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
export type AcceptAnswer =
  | ["queued", position: number]
  | ["joined", id: string]
  | ["cached", outputJson: string]
  | ["replayed", value: string]
  | ["mismatch" | "gone", 0]
  | ["full", FullQueue["unit"], FullQueue["whose"], held: number, jobs: number, perSecond: string];

/** Reads an answer of the step. */
export function acceptOutcome(answer: AcceptAnswer): AcceptOutcome {
  switch (answer[0]) {
    case "queued":
      return { kind: "queued", position: answer[1] };
    case "joined":
      return { kind: "joined", id: answer[1] };
    case "cached":
      return { kind: "cached", outputJson: answer[1] };
    case "replayed":
      return { kind: "replayed", ...decodeReplayed(answer[1]) };
    case "full": {
      const [kind, unit, whose, held, jobs, perSecond] = answer;
      return { kind, unit, whose, held, jobs, perSecond: Number(perSecond) };
    }
    default:
      return { kind: answer[0] };
  }
}

/** Reads the value of an idempotency key, after the hash: an id, with `joinedMark` for a joined submission. */
export function decodeReplayed(text: string): { id: string; joined: boolean } {
  return { id: text.replace(joinedMark, ""), joined: text.endsWith(joinedMark) };
}
