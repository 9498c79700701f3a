import { beatTtlMs } from "../../models/beat-times.js";
import { breakerOf, breakerSchema, type WorkerBreaker } from "../../models/breaker.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { number, optional, text } from "../lua/fields.js";

const script = defineScript({
  name: "millraceBreaker",
  file: "models/tell-breaker",
  keys: { breakers: text("The model's breakers that are not closed.") },
  fields: {
    worker: text("The breaker's worker."),
    version: text("The breaker's version."),
    nowMs: number("The current time; earlier entries are dropped."),
    holdsUntilMs: number("Time of expiry of the entry."),
    breaker: optional(text("The breaker as JSON; none for a closed one.")),
  },
  whenFull: true,
});

/**
 * Reports a worker's breaker to every API; null for a closed one. Must be repeated with each beat: the entry holds
 * until the breaker's next probe, at least for one beat, so that a dead worker leaves no breaker open for longer.
 */
export async function tellBreaker(
  redis: RedisClient,
  keys: ModelKeys,
  { version, worker }: Pick<WorkerBreaker, "worker" | "version">,
  breaker: WorkerBreaker | null,
  nowMs: number,
): Promise<void> {
  const until = breaker === null ? 0 : Math.max(breaker.retryAt, nowMs + beatTtlMs);
  await script.run(redis, {
    keys: { breakers: keys.breakers },
    fields: {
      worker,
      version,
      nowMs,
      holdsUntilMs: until,
      breaker: breaker === null ? null : JSON.stringify(breaker),
    },
  });
}

/** The workers' breakers that are not closed. */
export async function readBreakers(redis: RedisClient, keys: ModelKeys, nowMs: number): Promise<WorkerBreaker[]> {
  const texts = await redis.zrangebyscore(keys.breakers, nowMs, "+inf");
  return texts.flatMap((text) => breakerSchema.safeParse(JSON.parse(text)).data ?? []);
}

/** Whether submissions to a version are refused now, because it crashes on every worker that serves it. */
export async function isRefused(redis: RedisClient, keys: ModelKeys, version: string, nowMs: number): Promise<boolean> {
  const said = await readBreakers(redis, keys, nowMs);
  if (said.length === 0) return false;
  const beats = await redis.zrangebyscore(keys.beats, nowMs, "+inf");
  const alive = beats.filter((beat) => beat.endsWith(`|${version}`)).map((beat) => beat.slice(0, beat.indexOf("|")));
  return breakerOf(version, said, alive).refuses;
}
