import type { ConfirmedWrite } from "@millrace/shared/redis/confirm-writes.js";
import { refusalCode } from "@millrace/shared/redis/redis-faults.js";

const probeEveryMs = 500;

/** Whether Redis takes writes as durably as is promised, and why not. */
export type RedisState = "writable" | "full" | "not_replicated" | "unavailable";

/** What tells whether Redis takes writes; it is asked twice a second at the most, however often readiness is. */
export function createWriteProbe(confirmed: ConfirmedWrite, base: string): () => Promise<RedisState> {
  let probed: { at: number; state: Promise<RedisState> } | null = null;
  return () => {
    if (probed === null || Date.now() - probed.at > probeEveryMs) {
      const write = confirmed({ base }, (redis) => redis.set(`${base}/probe`, "1", "PX", 1000));
      const state = write.then(
        () => "writable" as const,
        (fault: Error) => {
          if (fault.name === "NotReplicatedError") return "not_replicated";
          return refusalCode(fault.message) === "OOM" ? "full" : "unavailable";
        },
      );
      probed = { at: Date.now(), state };
    }
    return probed.state;
  };
}
