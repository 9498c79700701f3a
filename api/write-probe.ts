import type { RedisClient } from "@millrace/shared/connect-redis.js";

const probeEveryMs = 500;

/** What tells whether Redis takes writes; it is asked twice a second at the most, however often readiness is. */
export function createWriteProbe(redis: RedisClient, key: string): () => Promise<boolean> {
  let probed: { at: number; writable: Promise<boolean> } | null = null;
  return () => {
    if (probed === null || Date.now() - probed.at > probeEveryMs) {
      const writable = redis.set(key, "1", "PX", 1000).then(
        () => true,
        () => false,
      );
      probed = { at: Date.now(), writable };
    }
    return probed.writable;
  };
}
