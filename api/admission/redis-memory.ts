import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { addressOfKey, mastersOf } from "@millrace/shared/redis/node-of-key.js";
import { memoryOf } from "@millrace/shared/redis/redis-info.js";
import { ServiceError } from "@millrace/shared/service/errors.js";

const lookEveryMs = 1000;
/** Older readings are ignored. */
const staleMs = 5000;
/** Whether memory is freed is told over this time. */
const trendMs = 10_000;
const longestWaitSeconds = 60;

interface Seen {
  at: number;
  used: number;
  max: number;
}

/**
 * Watches over the memory of every Redis master, once a second and never in a request. From a part of `maxmemory` new
 * work is refused, so that what is left is for what drains; without a `maxmemory` nothing ever is.
 */
export class RedisMemory {
  readonly #redis: RedisClient;
  /** The part of the memory that new work may use. */
  readonly part: number;
  readonly #seen = new Map<string, Seen[]>();
  #timer: NodeJS.Timeout | undefined;

  constructor(redis: RedisClient, part: number) {
    this.#redis = redis;
    this.part = part;
  }

  /** Looks once, and then every second until closed. */
  async start(): Promise<void> {
    await this.#look();
    this.#timer = setInterval(() => void this.#look(), lookEveryMs);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Memory for new work of all masters together, in bytes; 0 without a limit. */
  get limitBytes(): number {
    const max = [...this.#seen.values()].reduce((sum, seen) => sum + (seen.at(-1)?.max ?? 0), 0);
    return max * this.part;
  }

  /** Throws `memory_pressure`, or `redis_full`, where the node that has these keys has no room for new work. */
  assertCapacity(keys: Pick<ModelKeys, "base">): void {
    const seen = this.#seen.get(addressOfKey(this.#redis, keys.base));
    const last = seen?.at(-1);
    if (seen === undefined || last === undefined || !this.#isTight(last)) return;
    const retryAfterSeconds = this.#secondsUntilRoom(seen, last);
    if (last.used >= last.max) {
      throw new ServiceError("redis_full", "Redis has no memory for more work right now. Try again later.", {
        retryAfterSeconds,
      });
    }
    const detail = `Redis has used ${percent(last)} of its memory. New work is refused until there is room.`;
    throw new ServiceError("memory_pressure", detail, { retryAfterSeconds });
  }

  /** The fault, in words for an operator; null where new work is taken. */
  get complaint(): string | null {
    const tight = [...this.#seen.values()].flatMap((seen) => seen.at(-1) ?? []).filter((last) => this.#isTight(last));
    const [worst] = tight.sort((a, b) => b.used / b.max - a.used / a.max);
    if (worst === undefined) return null;
    const limit = Math.round(this.part * 100);
    return `Redis has used ${percent(worst)} of maxmemory, over ${limit} %: new work gets 429 until it has drained`;
  }

  #isTight({ at, max, used }: Seen): boolean {
    return max > 0 && used >= max * this.part && performance.now() - at < staleMs;
  }

  /** By how fast memory was freed lately; where it was not, a guess. */
  #secondsUntilRoom(seen: readonly Seen[], last: Seen): number {
    const first = seen[0] as Seen;
    const freedPerMs = (first.used - last.used) / Math.max(1, last.at - first.at);
    if (freedPerMs <= 0) return trendMs / 1000;
    const seconds = Math.ceil((last.used - last.max * this.part) / freedPerMs / 1000);
    return Math.min(longestWaitSeconds, Math.max(1, seconds));
  }

  async #look(): Promise<void> {
    await Promise.all(
      mastersOf(this.#redis).map(async ([name, node]) => {
        // While it is away, each write fails by itself.
        const memory = await memoryOf(node).catch(() => null);
        if (memory === null) return;
        const now = { at: performance.now(), ...memory };
        if (Number.isNaN(now.used)) return;
        const before = (this.#seen.get(name) ?? []).filter(({ at, max }) => now.at - at < trendMs && max === now.max);
        this.#seen.set(name, [...before, now]);
      }),
    );
  }
}

const percent = ({ max, used }: Seen): string => `${Math.floor((100 * used) / max)} %`;
