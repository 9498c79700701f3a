import { beatTtlMs } from "../../models/announcement.js";
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
    nowMs: number("The present time; entries that ended before are dropped."),
    holdsUntilMs: number("Time until which the entry counts."),
    breaker: optional(text("The breaker as JSON; none for a closed one.")),
  },
  whenFull: true,
});

/**
 * Tells every API of a worker's breaker; null: it is closed. To be told again with each beat: it holds until it was to
 * be tried, at least as long as a beat, so that a worker that dies leaves nothing open for longer.
 */
export async function tellBreaker(
  redis: RedisClient,
  keys: ModelKeys,
  { version, worker }: Pick<WorkerBreaker, "worker" | "version">,
  breaker: WorkerBreaker | null,
): Promise<void> {
  const now = Date.now();
  const until = breaker === null ? 0 : Math.max(breaker.retryAt, now + beatTtlMs);
  await script.run(redis, {
    keys: { breakers: keys.breakers },
    fields: {
      worker,
      version,
      nowMs: now,
      holdsUntilMs: until,
      breaker: breaker === null ? null : JSON.stringify(breaker),
    },
  });
}

/** What workers say of their breakers that are not closed. */
export async function readBreakers(redis: RedisClient, keys: ModelKeys): Promise<WorkerBreaker[]> {
  const texts = await redis.zrangebyscore(keys.breakers, Date.now(), "+inf");
  return texts.flatMap((text) => breakerSchema.safeParse(JSON.parse(text)).data ?? []);
}

/** Whether callers are turned away from a version at this moment, because it dies on every worker that has it. */
export async function isRefused(redis: RedisClient, keys: ModelKeys, version: string): Promise<boolean> {
  const said = await readBreakers(redis, keys);
  if (said.length === 0) return false;
  const beats = await redis.zrangebyscore(keys.beats, Date.now(), "+inf");
  const alive = beats.filter((beat) => beat.endsWith(`|${version}`)).map((beat) => beat.slice(0, beat.indexOf("|")));
  return breakerOf(version, said, alive).refuses;
}
