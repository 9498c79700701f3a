import type { RedisClient } from "./connect-redis.js";
import { storeClockKey } from "./keys.js";
import { nodeOfKey } from "./node-of-key.js";

/** A source of the current time. */
export interface Clock {
  /** The current time, in ms since the epoch. */
  now(): number;
  /** One of its times by this machine's clock, for libraries that compare it with that. */
  toLocal(timeMs: number): number;
}

/** Interval of the samples, in ms. A step of the store's clock is followed within about as long. */
const sampleEveryMs = 1000;

/** Number of samples among which the one with the shortest round trip counts. */
const keptSamples = 8;

/** Samples at the start, since the first round trip of a connection is a long one. */
const firstSamples = 3;

/** Allowance for the drift of the two clocks between samples, in ms. */
const driftMs = 5;

interface Sample {
  /** The store's time less the elapsed time of this process, in ms; right up to `boundMs`. */
  offsetMs: number;
  boundMs: number;
}

/**
 * The store's clock as measured by this process. Every time that is stored, compared with a stored one or shown to a
 * user is taken from it, so that the clock of a machine spoils nothing but its own log lines.
 *
 * Between samples the time goes on by the elapsed time of this process, which no step of the machine's clock changes. A
 * sample is one `TIME`, taken beside all requests; it is right up to half of its round trip. In a cluster, the master
 * of one key is asked, so that all processes ask the same one.
 */
export class StoreClock implements Clock {
  readonly #redis: RedisClient;
  readonly #key: string;
  #samples: Sample[] = [];
  #best: Sample | null = null;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(redis: RedisClient, keyPrefix: string) {
    this.#redis = redis;
    this.#key = storeClockKey(keyPrefix);
  }

  /** Takes the first samples, and goes on taking one a second. Rejects where the first fails. */
  async start(): Promise<void> {
    for (let taken = 0; taken < firstSamples; taken += 1) await this.#sample();
    this.#schedule();
  }

  /** The store's time; that of this machine before the first sample. */
  now(): number {
    return Math.floor(this.preciseNow());
  }

  /** As `now`, with fractions of a millisecond. */
  preciseNow(): number {
    return this.#best === null ? Date.now() : this.#best.offsetMs + performance.now();
  }

  /** This machine's clock less the store's, in ms. */
  offsetMs(): number {
    return this.#best === null ? 0 : Date.now() - performance.now() - this.#best.offsetMs;
  }

  toLocal(timeMs: number): number {
    return timeMs + this.offsetMs();
  }

  /** Ends the samples. May be called twice. */
  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #schedule(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      // While the store is away, the time goes on from the last sample.
      this.#sample()
        .catch(() => undefined)
        .finally(() => this.#schedule());
    }, sampleEveryMs);
    this.#timer.unref();
  }

  async #sample(): Promise<void> {
    const node = await nodeOfKey(this.#redis, this.#key);
    if (node === null) throw new Error("The master that has the store's clock is not known.");
    const sentAt = performance.now();
    const [seconds, microseconds] = (await node.time()).map(Number) as [number, number];
    const receivedAt = performance.now();
    const boundMs = (receivedAt - sentAt) / 2;
    this.add({ offsetMs: seconds * 1000 + microseconds / 1000 - (sentAt + boundMs), boundMs });
  }

  /** Takes in a sample. One that contradicts an earlier one shows that a clock has stepped, and replaces it. */
  add(sample: Sample): void {
    const agrees = (before: Sample) =>
      Math.abs(before.offsetMs - sample.offsetMs) <= before.boundMs + sample.boundMs + driftMs;
    this.#samples = [...this.#samples.filter(agrees), sample].slice(-keptSamples);
    this.#best = this.#samples.reduce((best, each) => (each.boundMs < best.boundMs ? each : best));
  }
}

/** The store's time once, in ms since the epoch, for a command that asks and ends. Rejects where it does not answer. */
export async function readStoreTime(redis: RedisClient, keyPrefix: string): Promise<number> {
  const clock = new StoreClock(redis, keyPrefix);
  try {
    await clock.start();
    return clock.now();
  } finally {
    clock.close();
  }
}
