/** A body for one connection: `before`, then the bytes of a file repeatedly, then its beginning. */
export interface SendSpec {
  port: number;
  /** Request line and headers, and the beginning of the body. A server without HTTP gets only the body, and closes. */
  before: string;
  http: boolean;
  file: string;
  repeats: number;
  /** Bytes of the file to send once more, from its beginning. */
  restBytes: number;
}

/** Report of a sent body; times are ms since the epoch. */
export interface SendReport {
  firstSentAt: number;
  answeredAt: number;
  /** HTTP status; 0 without HTTP. */
  status: number;
  body: string;
}

/** A body to read to its end, without a pause. */
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
  /** The last line, without its line end. */
  lastLine: string;
}

/** A JSON batch, submitted, waited for and read back on one connection, repeatedly. */
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
  /** The part until the 202, and from there until the finished batch. */
  acceptedMs: number[];
  finishedMs: number[];
}

/** Single predictions at a steady pace, independent of the answers, until a `stop`. */
export interface PaceSpec {
  port: number;
  path: string;
  headers: Record<string, string>;
  /** JSON text with `changing` in it. */
  body: string;
  perSecond: number;
}

export interface PaceReport {
  /** Due time of each, in ms since the epoch, and its latency from there. */
  dueAt: number[];
  latencyMs: number[];
}
