import type { BenchRedis } from "../harness/start-redis.js";
import { median } from "../load/statistics.js";

/** Change of Redis from the first tenth of the time to the last. */
export interface StoreCourse {
  usedMemory: number;
  keys: number;
  bytesPerKey: number;
  /** Used memory in each tenth, in order. */
  usedMiBByPart: number[];
}

const lookEveryMs = 5000;

/**
 * Samples Redis every few seconds until `stop`. Expired keys remain until Redis finds them, so their number is reported
 * apart from the memory of each.
 */
export function watchStore(redis: BenchRedis): { stop(): Promise<StoreCourse> } {
  const keys: number[] = [];
  const used: number[] = [];
  let looking: Promise<void> = Promise.resolve();
  const look = async () => {
    const [count, bytes] = await Promise.all([redis.client.dbsize(), redis.info("used_memory")]);
    keys.push(count);
    used.push(bytes);
  };
  const timer = setInterval(() => {
    looking = looking.then(look);
  }, lookEveryMs);
  const change = (values: readonly number[]): number => {
    const tenth = Math.max(1, Math.floor(values.length / 10));
    return median(values.slice(-tenth)) / median(values.slice(0, tenth)) - 1;
  };
  return {
    async stop() {
      clearInterval(timer);
      await looking;
      const part = (i: number) =>
        used.slice(Math.floor((i * used.length) / 10), Math.floor(((i + 1) * used.length) / 10));
      return {
        usedMemory: change(used),
        keys: change(keys),
        bytesPerKey: change(used.map((bytes, i) => bytes / (keys[i] as number))),
        usedMiBByPart: Array.from({ length: 10 }, (_, i) =>
          Number((median([...part(i), ...(part(i).length ? [] : used)]) / 2 ** 20).toFixed(1)),
        ),
      };
    },
  };
}
