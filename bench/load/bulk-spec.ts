/** A body that is sent over one connection: `before`, then the bytes of a file over and over, then its beginning. */
export interface SendSpec {
  port: number;
  /**
   * Request line and headers, and what the body begins with; a server that speaks no HTTP is sent just the body, and
   * closes.
   */
  before: string;
  http: boolean;
  file: string;
  repeats: number;
  /** Bytes of the file that are sent once more, from its beginning. */
  restBytes: number;
}

/** What came of it; times are ms since the epoch. */
export interface SendReport {
  firstSentAt: number;
  answeredAt: number;
  /** Of HTTP; else 0. */
  status: number;
  body: string;
}

/** A body that is read to its end, as fast as it comes. */
export interface FetchSpec {
  port: number;
  path: string;
  headers: Record<string, string>;
}

export interface FetchReport {
  sentAt: number;
  endedAt: number;
  status: number;
  bytes: number;
  /** What follows the last line end but one. */
  lastLine: string;
}

/** A batch as JSON, submitted, waited for and read back on one connection, one time after the other. */
export interface ExchangeSpec {
  port: number;
  path: string;
  headers: Record<string, string>;
  file: string;
  rows: number;
  times: number;
}

export interface ExchangeReport {
  /** From the first byte sent to the last result byte received. */
  wholeMs: number[];
  /** Of it, to the 202; and from there to the finished batch. */
  acceptedMs: number[];
  finishedMs: number[];
}

/** Single predictions at a steady pace, however long the answers take, until a `stop`. */
export interface PaceSpec {
  port: number;
  path: string;
  headers: Record<string, string>;
  /** JSON text with `changing` in it. */
  body: string;
  perSecond: number;
}

export interface PaceReport {
  /** When each was due, in ms since the epoch, and how long after that it was answered. */
  dueAt: number[];
  latencyMs: number[];
}
