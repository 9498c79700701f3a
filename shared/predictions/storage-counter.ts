import type { RedisClient } from "../redis/connect-redis.js";
import { storedKey } from "../redis/keys.js";
import type { Clock } from "../redis/store-clock.js";
import type { Logger } from "../service/log.js";
import { flushRegularly, type RegularFlush } from "../service/regular-flush.js";

const flushEveryMs = 1000;
/** The result time in periods; what was stored in one of them is taken to expire with its end. */
const periods = 24;

/** What Redis takes for a result beside its bytes: its key, and its place in lists. */
export const resultOverheadBytes = 300;

/** The same of a chunk of a batch, inputs or outputs. */
export const chunkOverheadBytes = 200;

/** The length of a period in seconds, and the number of the present one. */
function periodAt(resultTtlSeconds: number, nowMs: number): { seconds: number; number: number } {
  const seconds = Math.max(1, Math.ceil(resultTtlSeconds / periods));
  return { seconds, number: Math.floor(nowMs / 1000 / seconds) };
}

/** Told of bytes that are stored for an owner until the result time has passed. */
export type OnStored = (owner: string, bytes: number) => void;

/**
 * Counts what is stored for each owner until the result time has passed, in hashes by period that all processes add to.
 * Counts are written once a second; a killed process loses its last second.
 */
export class StorageCounter {
  readonly #redis: RedisClient;
  readonly #keyPrefix: string;
  readonly #resultTtlSeconds: number;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #flushes: RegularFlush;
  #counts = new Map<string, number>();

  constructor(redis: RedisClient, keyPrefix: string, resultTtlSeconds: number, clock: Clock, log: Logger) {
    this.#redis = redis;
    this.#keyPrefix = keyPrefix;
    this.#resultTtlSeconds = resultTtlSeconds;
    this.#clock = clock;
    this.#log = log;
    this.#flushes = flushRegularly(flushEveryMs, () => this.#flush());
  }

  readonly add: OnStored = (owner, bytes) => {
    this.#counts.set(owner, (this.#counts.get(owner) ?? 0) + bytes);
  };

  /** Writes what is left. May be called twice. */
  close(): Promise<void> {
    return this.#flushes.close();
  }

  async #flush(): Promise<void> {
    if (this.#counts.size === 0) return;
    const counts = this.#counts;
    this.#counts = new Map();
    const { number, seconds } = periodAt(this.#resultTtlSeconds, this.#clock.now());
    const key = storedKey(this.#keyPrefix, seconds, number);
    const pipeline = this.#redis.multi();
    for (const [owner, bytes] of counts) pipeline.hincrby(key, owner, bytes);
    try {
      await pipeline.expire(key, (periods + 1) * seconds).exec();
    } catch (error) {
      // Whether they were written is not known; nobody is refused for bytes that may not be there.
      this.#log.warn("stored bytes not counted", { owners: counts.size, error });
    }
  }
}

/** The owners for whom something was stored within the result time, in the order of their names. */
export async function readStoredOwners(
  redis: RedisClient,
  keyPrefix: string,
  resultTtlSeconds: number,
  nowMs: number,
): Promise<string[]> {
  const { number, seconds } = periodAt(resultTtlSeconds, nowMs);
  const keys = Array.from({ length: periods + 1 }, (_, i) => storedKey(keyPrefix, seconds, number - i));
  const owners = await Promise.all(keys.map((key) => redis.hkeys(key)));
  return [...new Set(owners.flat())].sort();
}

/** Bytes stored for each of the owners until the result time has passed, in their order. */
export async function readStored(
  redis: RedisClient,
  keyPrefix: string,
  { nowMs, resultTtlSeconds }: { nowMs: number; resultTtlSeconds: number },
  owners: readonly string[],
): Promise<number[]> {
  const { number, seconds } = periodAt(resultTtlSeconds, nowMs);
  const keys = Array.from({ length: periods + 1 }, (_, i) => storedKey(keyPrefix, seconds, number - i));
  const counts = await Promise.all(keys.map((key) => redis.hmget(key, ...owners)));
  return owners.map((_, i) => counts.reduce((sum, each) => sum + Number(each[i] ?? 0), 0));
}
