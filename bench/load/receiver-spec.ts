/** What the receiver is to wait for: so many different webhooks. */
export interface Expectation {
  webhooks: number;
  /** Whether to read of each how long after `finished_at` it arrived; a busy receiver would rather not. */
  timed: boolean;
}

/** Sent when they have arrived. */
export interface Arrivals {
  /** Webhooks whose id had come before. */
  repeats: number;
  /** From `finished_at` to the arrival, in whole ms, in order of arrival; empty where that was not asked for. */
  delaysMs: number[];
}

/** What the receiver process says: where it listens, that it listens for what was asked, and what came of it. */
export type ReceiverNote = { port: number } | { listening: true } | { arrivals: Arrivals };
