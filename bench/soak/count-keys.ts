import { Redis } from "ioredis";
import type { BenchRedis } from "../harness/start-redis.js";

/**
 * How many keys there are, by kind: what a key is called without what differs from one to the next of its kind. Left
 * out is what is kept for longer than a result on purpose: the newest finished jobs of each of the queues, statistics
 * by the hour, and idempotency keys for a day.
 */
export async function countKeys(
  { url }: Pick<BenchRedis, "url">,
  queues: readonly string[],
): Promise<Map<string, number>> {
  const redis = new Redis(url);
  try {
    const kept = new Set<string>();
    for (const queue of queues) {
      for (const set of ["completed", "failed"]) {
        for (const id of (await redis.call("ZRANGE", `${queue}${set}`, "0", "-1")) as string[])
          kept.add(`${queue}${id}`);
      }
    }
    const counts = new Map<string, number>();
    for await (const found of redis.scanStream({ count: 1000 })) {
      for (const key of found as string[]) {
        if (kept.has(key) || /\/(?:statistics|drift|idempotency):/.test(key)) continue;
        const kind = kindOf(key);
        counts.set(kind, (counts.get(kind) ?? 0) + 1);
      }
    }
    return counts;
  } finally {
    redis.disconnect();
  }
}

function kindOf(key: string): string {
  return key
    .replace(/\{[^}]*\}/, "{}")
    .replace(/(?<=[:/-])[0-9a-hjkmnp-z]{28}(?=$|:|-)/g, "<id>")
    .replace(/(?<=\/dedup:).*/, "<hash>")
    .replace(/(?<=<id>-)\d+/, "<n>");
}
