import type {
  ExchangeReport,
  ExchangeSpec,
  FetchReport,
  FetchSpec,
  PaceReport,
  PaceSpec,
  SendReport,
  SendSpec,
} from "./bulk-spec.js";
import type { Latency } from "./statistics.js";

/** What in a body is replaced by a number that differs with each request, of as many digits. */
export const changing = "########";

/** One run of the generator: so many requests over so many connections, each sending its next when it was answered. */
export interface LoadSpec {
  port: number;
  path: string;
  headers: Record<string, string>;
  /** JSON text, with `changing` in it where requests shall differ. */
  body: string;
  /** Bytes of float32 numbers to send after the JSON, as the tensor API's binary data; none by itself. */
  binaryBytes?: number;
  connections: number;
  requests: number;
  /** Status that each answer must have. */
  expectStatus: number;
}

/** What came of a run; times are ms since the epoch. */
export interface LoadReport {
  firstSentAt: number;
  lastAnsweredAt: number;
  latency: Latency;
}

/** Many callers who each wait for a prediction of their own, whose results then come at a steady pace. */
export interface HoldSpec {
  port: number;
  /** Where predictions are submitted. */
  path: string;
  headers: Record<string, string>;
  /** A submission without `delay_ms`, with `changing` in it. */
  body: string;
  waits: number;
  /** When the first of them may start, in ms since the epoch; all must wait by then. */
  firstDueAt: number;
  duePerSecond: number;
}

/** What came of it. */
export interface HoldReport {
  /** From `finished_at` in the answer to its arrival, in ms. */
  latency: Latency;
  /** Results a second, by `finished_at`. */
  finishedPerSecond: number;
}

/** What the generator process is asked, and what it answers with; `stop` ends a `pace` and has no answer of its own. */
export type LoadOrder =
  | { run: LoadSpec }
  | { hold: HoldSpec }
  | { send: SendSpec }
  | { fetch: FetchSpec }
  | { exchange: ExchangeSpec }
  | { pace: PaceSpec }
  | { stop: true };
export type LoadReply =
  | { report: LoadReport }
  | { held: HoldReport }
  | { sent: SendReport }
  | { fetched: FetchReport }
  | { exchanged: ExchangeReport }
  | { paced: PaceReport }
  | { fault: string };
