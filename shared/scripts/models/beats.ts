import { beatTtlMs } from "../../models/beat-times.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { number, text, unnamed } from "../lua/fields.js";
import { scriptOf } from "../lua/script.js";

/** The step of a heartbeat. Its text is made elsewhere, so that a thread that only beats loads little. */
export const beatTable = {
  name: "millraceBeat",
  file: "models/beat",
  keys: { beats: text("Beats of served or leaving versions.") },
  fields: { silentBeforeMs: number("Earlier beats are dropped.") },
  each: {
    aliveUntilMs: unnamed(number("Time of expiry of the beat.")),
    member: unnamed(text("`worker|version`.")),
  },
  whenFull: true,
} as const;

/** Heartbeats of a worker's versions; `lua` is the text of the step of `beatTable`. */
export function beatsOf(redis: RedisClient, worker: string, lua: string) {
  const script = scriptOf(beatTable, lua);
  const memberOf = (version: string) => `${worker}|${version}`;
  return {
    /** Records that the worker is alive, with its served and leaving versions, and drops long expired beats. */
    async beat(
      keys: ModelKeys,
      { leaving, serving }: { serving: readonly string[]; leaving: readonly string[] },
      nowMs: number,
    ): Promise<void> {
      for (const [key, versions] of [
        [keys.beats, serving],
        [keys.leaving, leaving],
      ] as const) {
        await script.run(redis, {
          keys: { beats: key },
          fields: { silentBeforeMs: nowMs - 60_000 },
          each: versions.map((version) => ({ aliveUntilMs: nowMs + beatTtlMs, member: memberOf(version) })),
        });
      }
    },

    /** Removes the worker's beats of these versions. */
    async end(keys: ModelKeys, versions: readonly string[]): Promise<void> {
      if (versions.length === 0) return;
      const members = versions.map(memberOf);
      await redis.zrem(keys.beats, ...members);
      await redis.zrem(keys.leaving, ...members);
    },
  };
}
