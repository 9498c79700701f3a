import { type RateLimiterRedis, RateLimiterRes } from "rate-limiter-flexible";

interface Asked {
  cost: number;
  resolve(left: RateLimiterRes): void;
  reject(fault: unknown): void;
}

/**
 * Takes from a limit, in one step for all that ask with the same key in the same turn of the event loop; where that is too
 * much, for each by itself. What is refused must take nothing.
 */
export class JoinedLimiter {
  readonly #limiter: RateLimiterRedis;
  #asked = new Map<string, Asked[]>();

  constructor(limiter: RateLimiterRedis) {
    this.#limiter = limiter;
  }

  get points(): number {
    return this.#limiter.points;
  }

  /** Resolves to what is left for all that asked; rejects with a RateLimiterRes where there is not so much. */
  consume(key: string, cost: number): Promise<RateLimiterRes> {
    return new Promise((resolve, reject) => {
      if (this.#asked.size === 0) setImmediate(() => this.#takeAll());
      const asked = this.#asked.get(key);
      if (asked === undefined) this.#asked.set(key, [{ cost, resolve, reject }]);
      else asked.push({ cost, resolve, reject });
    });
  }

  #takeAll(): void {
    const all = this.#asked;
    this.#asked = new Map();
    for (const [key, asked] of all) void this.#take(key, asked);
  }

  async #take(key: string, asked: readonly Asked[]): Promise<void> {
    const cost = asked.reduce((sum, one) => sum + one.cost, 0);
    try {
      // More than the limit holds is refused unasked, and never goes in.
      const together = asked.length === 1 || cost <= this.points;
      if (!together) throw new RateLimiterRes();
      const left = await this.#limiter.consume(key, cost);
      for (const { resolve } of asked) resolve(left);
    } catch (fault) {
      if (asked.length > 1 && fault instanceof RateLimiterRes) {
        await Promise.all(asked.map((one) => this.#take(key, [one])));
      } else for (const { reject } of asked) reject(fault);
    }
  }
}
