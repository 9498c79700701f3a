import { setTimeout as delay } from "node:timers/promises";
import { decodeResult, type StoredResult } from "@millrace/shared/predictions/prediction.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { noticeChannel } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";

/** Somebody who waits for a prediction to become final. */
export interface Waiter {
  /** Resolves to the result, to `"look"` when it is worth reading again, or to null when the wait is over. */
  next(): Promise<StoredResult | "look" | null>;
  /** Ends the wait when `signal` aborts. */
  closeWhen(signal: AbortSignal): void;
  close(): void;
}

interface Open {
  deliver(news: StoredResult | "look" | null): void;
}

/** Each wait reads again at a time of its own, up to this part later, because thousands at once hold up everybody. */
const rereadSpread = 2 / 3;
const rereadSteps = 100;
/** Waits that read at once when all of them have to. */
const rereadsAtOnce = 200;
const rereadPauseMs = 50;

/**
 * What this API hears of ends: one subscription for all callers who wait here, on a channel of its own, so that it
 * hears only of what they wait for. A notice may be lost with a connection, so every wait also reads again after
 * `rereadMs`.
 */
export class Notices {
  readonly apiId: string;
  readonly #subscriber: RedisClient;
  readonly #channel: string;
  readonly #rereadMs: number;
  readonly #clock: Clock;
  readonly #waiting = new Map<string, Set<Open>>();
  closed = false;

  constructor(subscriber: RedisClient, prefix: string, apiId: string, clock: Clock, rereadMs: number) {
    this.apiId = apiId;
    this.#rereadMs = rereadMs;
    this.#clock = clock;
    this.#subscriber = subscriber;
    this.#channel = noticeChannel(prefix, apiId);
    // What was told while the connection was broken is lost, so everybody looks for themselves when it is back.
    subscriber.on("ready", () => void this.#rereadAll());
    subscriber.on("message", (channel: string, text: string) => {
      if (channel === this.#channel) this.#hear(text);
    });
  }

  async start(): Promise<void> {
    await this.#subscriber.subscribe(this.#channel);
  }

  get open(): number {
    return this.#waiting.size;
  }

  /**
   * Begins to listen for a prediction, for `waitMs` at the most, and says to look at `lookAt` (ms since the epoch). To
   * be closed by the caller.
   */
  wait(id: string, waitMs: number, lookAt: number | null = null): Waiter {
    let wake: ((news: StoredResult | "look" | null) => void) | null = null;
    let missed: StoredResult | "look" | null | undefined;
    const entry: Open = {
      deliver(news) {
        // A result that nobody has picked up yet is worth more than whatever comes after it.
        if (wake === null)
          missed = typeof missed === "object" && missed !== null ? missed : missed === null ? null : news;
        else wake(news);
        wake = null;
      },
    };
    const timer = setTimeout(() => entry.deliver(null), this.closed ? 0 : waitMs);
    const step = Math.floor(Math.random() * rereadSteps);
    const rereadMs = this.#rereadMs * (1 + (rereadSpread * step) / rereadSteps);
    const rereadTimer = waitMs > rereadMs ? setInterval(() => entry.deliver("look"), rereadMs) : undefined;
    // What expires does so by the clock; nobody tells.
    const lookTimer =
      lookAt === null || lookAt - this.#clock.now() >= waitMs
        ? undefined
        : setTimeout(() => entry.deliver("look"), Math.max(0, lookAt - this.#clock.now()) + 1);
    const set = this.#waiting.get(id) ?? new Set();
    this.#waiting.set(id, set.add(entry));
    let until: AbortSignal | null = null;
    const close = () => {
      until?.removeEventListener("abort", close);
      clearTimeout(timer);
      clearTimeout(lookTimer);
      clearInterval(rereadTimer);
      entry.deliver(null);
      set.delete(entry);
      if (set.size === 0 && this.#waiting.get(id) === set) this.#waiting.delete(id);
    };
    return {
      next() {
        if (missed !== undefined) {
          const news = missed;
          missed = undefined;
          return Promise.resolve(news);
        }
        return new Promise((resolve) => {
          wake = resolve;
        });
      },
      closeWhen(signal) {
        until = signal;
        if (signal.aborted) close();
        else signal.addEventListener("abort", close);
      },
      close,
    };
  }

  /** Ends every wait at once, as if its time were over. */
  close(): void {
    this.closed = true;
    for (const set of this.#waiting.values()) for (const entry of set) entry.deliver(null);
  }

  #hear(text: string): void {
    const end = text.indexOf("\n");
    const set = this.#waiting.get(text.slice(0, end));
    if (set === undefined) return;
    const news = end + 1 < text.length ? decodeResult(text.slice(end + 1)) : "look";
    for (const entry of set) entry.deliver(news);
  }

  async #rereadAll(): Promise<void> {
    const all = [...this.#waiting.values()].flatMap((set) => [...set]);
    for (let i = 0; i < all.length; i += rereadsAtOnce) {
      for (const entry of all.slice(i, i + rereadsAtOnce)) entry.deliver("look");
      await delay(rereadPauseMs);
    }
  }
}
