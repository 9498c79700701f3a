import type { Latency } from "../harness/statistics.js";

/** What in a body is replaced by a number that differs with each request, of as many digits. */
export const changing = "########";

/** One run of the generator: so many requests over so many connections, each sending its next when it was answered. */
export interface LoadSpec {
  port: number;
  path: string;
  headers: Record<string, string>;
  /** JSON text, with `changing` in it where requests shall differ. */
  body: string;
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

/** What the generator process answers with. */
export type LoadReply = { report: LoadReport } | { fault: string };
