import { joinCalls } from "@millrace/shared/service/join-turn.js";
import { type RateLimiterRedis, RateLimiterRes } from "rate-limiter-flexible";

interface Asked {
  key: string;
  cost: number;
}

/** The rest that is left for all that asked, or the reason why nothing was taken. */
type Taken = { left: RateLimiterRes } | { fault: unknown };

/**
 * Takes from a limit, in one step for all that ask with the same key in the same turn of the event loop; where that is
 * too much, for each by itself. What is refused must take nothing.
 */
export class JoinedLimiter {
  readonly #limiter: RateLimiterRedis;
  readonly #take = joinCalls<Asked, Taken>((asked) => this.#takeStep(asked), { keyOf: ({ key }) => key });

  constructor(limiter: RateLimiterRedis) {
    this.#limiter = limiter;
  }

  get points(): number {
    return this.#limiter.points;
  }

  /** Resolves to what is left for all that asked; rejects with a RateLimiterRes where there is not so much. */
  async consume(key: string, cost: number): Promise<RateLimiterRes> {
    const taken = await this.#take({ key, cost });
    if ("fault" in taken) throw taken.fault;
    return taken.left;
  }

  async #takeStep(asked: readonly [Asked, ...Asked[]]): Promise<Taken[]> {
    const cost = asked.reduce((sum, one) => sum + one.cost, 0);
    try {
      // More than the limit holds is refused without a question to Redis.
      const together = asked.length === 1 || cost <= this.points;
      if (!together) throw new RateLimiterRes();
      const left = await this.#limiter.consume(asked[0].key, cost);
      return asked.map(() => ({ left }));
    } catch (fault) {
      if (asked.length === 1 || !(fault instanceof RateLimiterRes)) return asked.map(() => ({ fault }));
      return (await Promise.all(asked.map((one) => this.#takeStep([one])))).flat();
    }
  }
}
