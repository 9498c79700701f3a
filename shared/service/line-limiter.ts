/** A log line before it is written. */
export interface LogEntry {
  level: string;
  message: unknown;
  [field: string]: unknown;
}

/** Lines of one message that may be written in a rush; later ones one a second. */
const burstPerMessage = 15;
/** Lines of all messages in a rush, and a second. */
const burst = 20;
const perSecond = 5;
/** Further lines for messages that were not written lately, so that no rush hides what is new. */
const reserve = 5;
/** Messages whose count is written in one second. */
const countsPerSecond = 4;
/** Different messages that are remembered. */
const mostMessages = 500;
const tickMs = 1000;

interface Seen {
  left: number;
  since: number;
  folded: LogEntry | null;
  count: number;
}

/**
 * Keeps a process under 50 log lines a second, whatever happens. The first lines of a message are written at once;
 * further ones at most once a second, as one line with the fields of the last and their `count`.
 */
export class LineLimiter {
  readonly #write: (entry: LogEntry) => void;
  readonly #now: () => number;
  readonly #seen = new Map<string, Seen>();
  #left = burst;
  #since: number;
  #timer: NodeJS.Timeout | null = null;

  /** `write`: writes a line that was held back. `now`: ms of any steady clock. */
  constructor(write: (entry: LogEntry) => void, now: () => number = () => performance.now()) {
    this.#write = write;
    this.#now = now;
    this.#since = now();
  }

  /** Whether to write the line now; else it is counted, and its message is written within some seconds. */
  admit(entry: LogEntry): boolean {
    const now = this.#now();
    this.#left = Math.min(burst, this.#left + ((now - this.#since) / 1000) * perSecond);
    this.#since = now;
    const key = `${entry.level} ${String(entry.message)}`;
    const known = this.#seen.get(key);
    const seen = known ?? { left: burstPerMessage, since: now, folded: null, count: 0 };
    if (known === undefined) {
      this.#forgetSome();
      this.#seen.set(key, seen);
    }
    seen.left = Math.min(burstPerMessage, seen.left + (now - seen.since) / 1000);
    seen.since = now;
    const floor = seen.left >= burstPerMessage - 1 ? 1 - reserve : 1;
    if (seen.folded === null && seen.left >= 1 && this.#left >= floor) {
      seen.left -= 1;
      this.#left -= 1;
      return true;
    }
    seen.folded = entry;
    seen.count += 1;
    if (this.#timer === null) this.#timer = setTimeout(() => this.#tick(), tickMs).unref();
    return false;
  }

  /** Writes the counts of the messages that have waited longest. */
  #tick(): void {
    this.#timer = null;
    const waiting = [...this.#seen].filter(([, { folded }]) => folded !== null);
    for (const [key, seen] of waiting.slice(0, countsPerSecond)) {
      const { count, folded } = seen;
      this.#seen.delete(key);
      // At the end, so that the others come first at the next tick.
      this.#seen.set(key, { ...seen, folded: null, count: 0 });
      this.#write(count === 1 ? (folded as LogEntry) : { ...(folded as LogEntry), count });
    }
    if (waiting.length > countsPerSecond) this.#timer = setTimeout(() => this.#tick(), tickMs).unref();
  }

  #forgetSome(): void {
    if (this.#seen.size < mostMessages) return;
    for (const [key, { folded }] of this.#seen) {
      if (folded === null) {
        this.#seen.delete(key);
        return;
      }
    }
  }
}
