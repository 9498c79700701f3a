import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { limitPrefix } from "@millrace/shared/redis/keys.js";
import { tokenBucket, bucketSeconds as windowSeconds } from "@millrace/shared/scripts/access/token-bucket.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Response } from "express";
import { RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from "rate-limiter-flexible";
import { JoinedLimiter } from "./joined-limiter.js";
import type { Caller } from "./key-ring.js";

declare global {
  namespace Express {
    interface Locals {
      /** The limits that the answer tells of, by name. */
      rateLimits?: Map<string, { policy: string; state: string }>;
    }
  }
}

export interface RateLimitSettings {
  /** Requests of a key a minute; null: any number. */
  requestsPerMinute: number | null;
  /** Rows of a key a minute, those of batches included. */
  rowsPerMinute: number | null;
  /** Refused keys of an address a minute. */
  failuresPerMinute: number | null;
}

/**
 * Limits that all APIs share, in Redis. While it is away nothing passes that is limited, but for failed logins, which
 * are then counted by each API alone.
 */
export class RateLimits {
  readonly #prefix: string;
  readonly #requests: JoinedLimiter | null;
  readonly #rows: JoinedLimiter | null;
  readonly #failures: RateLimiterRedis | null;
  /** Addresses that have used up their failures, until when (ms of `performance.now()`). */
  readonly #blocked = new Map<string, number>();
  /** Keys that were good from an address: nobody else at the same address can lock them out. */
  readonly #good = new Set<string>();

  constructor(redis: RedisClient, prefix: string, settings: RateLimitSettings) {
    this.#prefix = prefix;
    const limiter = (name: string, points: number | null, insured = false) =>
      points === null
        ? null
        : new RateLimiterRedis({
            storeClient: redis,
            keyPrefix: limitPrefix(prefix, name),
            points,
            duration: windowSeconds,
            customIncrTtlLuaScript: tokenBucket.lua,
            ...(insured && { insuranceLimiter: new RateLimiterMemory({ points, duration: windowSeconds }) }),
          });
    const joined = (limit: RateLimiterRedis | null) => (limit === null ? null : new JoinedLimiter(limit));
    this.#requests = joined(limiter("requests", settings.requestsPerMinute));
    this.#rows = joined(limiter("rows", settings.rowsPerMinute));
    this.#failures = limiter("failures", settings.failuresPerMinute, true);
  }

  /** The most rows that a request can ever have; a larger one need not be read to its end. */
  get mostRows(): number {
    return this.#rows?.points ?? Number.POSITIVE_INFINITY;
  }

  /** The bucket of the rows of a key; null where rows have no limit. */
  rowsBucket(keyId: string): { key: string; limit: number } | null {
    return this.#rows === null
      ? null
      : { key: `${limitPrefix(this.#prefix, "rows")}:${keyId}`, limit: this.#rows.points };
  }

  /** Counts a request. Rejects with `rate_limited`, or `redis_unavailable` where nobody can count. */
  async request(caller: Caller, response: Response): Promise<void> {
    if (this.#requests !== null) await take(this.#requests, "requests", caller.keyId, 1, response);
  }

  /** Counts rows, likewise; 0 asks only whether there is room for one at all. */
  async rows(caller: Caller, count: number, response: Response): Promise<void> {
    if (this.#rows !== null) await take(this.#rows, "rows", caller.keyId, count, response);
  }

  /** Refuses an address that has guessed too often, whatever it brings now, but for keys that were good before. */
  admit(address: string, caller: Caller | null): void {
    if (this.#failures === null) return;
    const until = this.#blocked.get(address);
    if (until !== undefined && until <= performance.now()) this.#blocked.delete(address);
    const known = caller === null ? "" : `${caller.keyId} ${address}`;
    if (until !== undefined && until > performance.now() && !this.#good.has(known))
      throw tooManyFailures(until - performance.now());
    if (caller === null) return;
    if (this.#good.size > mostKnown) this.#good.clear();
    this.#good.add(known);
  }

  /** Counts a key that was refused. Rejects with `rate_limited` when there were too many. */
  async failed(address: string): Promise<void> {
    if (this.#failures === null) return;
    try {
      await this.#failures.consume(address, 1);
    } catch (fault) {
      if (!(fault instanceof RateLimiterRes)) throw fault;
      if (this.#blocked.size > mostKnown) this.#blocked.clear();
      this.#blocked.set(address, performance.now() + fault.msBeforeNext);
      throw tooManyFailures(fault.msBeforeNext);
    }
  }
}

const mostKnown = 100_000;

async function take(
  limiter: JoinedLimiter,
  name: string,
  key: string,
  cost: number,
  response: Response,
): Promise<void> {
  const { points } = limiter;
  const tell = (left: number, ms: number) => {
    response.locals.rateLimits ??= new Map();
    const told = response.locals.rateLimits;
    told.set(name, {
      policy: `"${name}";q=${points};w=${windowSeconds}`,
      state: `"${name}";r=${left};t=${Math.ceil(ms / 1000)}`,
    });
    response.setHeader("RateLimit-Policy", [...told.values()].map(({ policy }) => policy).join(", "));
    response.setHeader("RateLimit", [...told.values()].map(({ state }) => state).join(", "));
  };
  if (cost > points) {
    tell(points, 0);
    const detail = `One request may have at most ${points} rows, as many as its key may have in a minute.`;
    throw new ServiceError("rate_limited", detail, { retryAfterSeconds: windowSeconds });
  }
  try {
    const { consumedPoints, msBeforeNext } = await limiter.consume(key, cost);
    tell(points - consumedPoints, msBeforeNext);
    if (cost === 0 && consumedPoints >= points) throw tooMany(name, points, (windowSeconds * 1000) / points);
  } catch (fault) {
    if (!(fault instanceof RateLimiterRes)) throw fault;
    tell(Math.max(0, points - (fault.consumedPoints - points - 1)), fault.msBeforeNext);
    throw tooMany(name, points, fault.msBeforeNext);
  }
}

const tooMany = (name: string, limit: number, ms: number) =>
  new ServiceError("rate_limited", `This key is limited to ${limit} ${name} a minute.`, {
    retryAfterSeconds: Math.max(1, Math.ceil(ms / 1000)),
  });

const tooManyFailures = (ms: number) =>
  new ServiceError("rate_limited", "Too many keys from this address were refused.", {
    retryAfterSeconds: Math.max(1, Math.ceil(ms / 1000)),
  });
