import { Redis } from "ioredis";
import type { BenchRedis } from "../harness/start-redis.js";

/** How many keys there are, by kind: what a key is called without what differs from one to the next of its kind. */
export async function countKeys({ url }: Pick<BenchRedis, "url">): Promise<Map<string, number>> {
  const redis = new Redis(url);
  try {
    const counts = new Map<string, number>();
    for await (const found of redis.scanStream({ count: 1000 })) {
      for (const key of found as string[]) {
        const kind = kindOf(key);
        counts.set(kind, (counts.get(kind) ?? 0) + 1);
      }
    }
    return counts;
  } finally {
    redis.disconnect();
  }
}

/** Statistics of an hour are kept for some hours, whatever happened in them. */
export const isHourly = (kind: string): boolean => /\/(statistics|drift)/.test(kind);

function kindOf(key: string): string {
  return key
    .replace(/\{[^}]*\}/, "{}")
    .replace(/(?<=[:/-])[0-9a-hjkmnp-z]{28}(?=$|:|-)/g, "<id>")
    .replace(/(?<=\/dedup:).*/, "<hash>")
    .replace(/(?<=\/(?:statistics|drift):).*/, "<hour>")
    .replace(/(?<=<id>-)\d+/, "<n>");
}
