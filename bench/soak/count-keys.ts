import { Redis } from "ioredis";
import type { BenchRedis } from "../harness/start-redis.js";

/**
 * Numbers of keys by kind, which is the key's name without its variable parts. Leaves out keys that deliberately
 * outlive a result: the newest finished jobs of each queue, statistics by the hour, and idempotency keys, which last a
 * day.
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
