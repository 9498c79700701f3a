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

/** Placeholder in a body, replaced by a different number of as many digits in each request. */
export const changing = "########";

/**
 * One run of the generator: a number of requests over a number of connections, each of which sends its next request
 * after an answer.
 */
export interface LoadSpec {
  port: number;
  path: string;
  headers: Record<string, string>;
  /** JSON text, with `changing` where requests are to differ. */
  body: string;
  /** Bytes of float32 numbers to send after the JSON, as the tensor API's binary data; none by default. */
  binaryBytes?: number;
  connections: number;
  requests: number;
  /** Expected status of each answer. */
  expectStatus: number;
}

/** Report of a run; times are ms since the epoch. */
export interface LoadReport {
  firstSentAt: number;
  lastAnsweredAt: number;
  latency: Latency;
}

/** Many callers, each of which waits for its own prediction; the results come at a steady pace. */
export interface HoldSpec {
  port: number;
  /** Path of the submissions. */
  path: string;
  headers: Record<string, string>;
  /** A submission without `delay_ms`, with `changing` in it. */
  body: string;
  waits: number;
  /** Start time of the first prediction, in ms since the epoch; all must wait by then. */
  firstDueAt: number;
  duePerSecond: number;
}

/** Report of the waits. */
export interface HoldReport {
  /** From `finished_at` in the answer to its arrival, in ms. */
  latency: Latency;
  /** Results a second, by `finished_at`. */
  finishedPerSecond: number;
}

/** Orders to the generator process, and its replies; `stop` ends a `pace` and has no reply of its own. */
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
