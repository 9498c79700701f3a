/** The number of distinct webhooks that the receiver waits for. */
export interface Expectation {
  webhooks: number;
  /** Whether to read the delay from `finished_at` of each; costs a busy receiver time. */
  timed: boolean;
}

/** Sent when all have arrived. */
export interface Arrivals {
  /** Webhooks with a repeated id. */
  repeats: number;
  /** From `finished_at` to the arrival, in whole ms, in order of arrival; empty unless `timed`. */
  delaysMs: number[];
}

/** Messages of the receiver process: its port, that it is ready for an expectation, and its report. */
export type ReceiverNote = { port: number } | { listening: true } | { arrivals: Arrivals };
