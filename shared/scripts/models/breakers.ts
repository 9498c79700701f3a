import { beatTtlMs } from "../../models/announcement.js";
import { breakerOf, breakerSchema, type WorkerBreaker } from "../../models/breaker.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { runScript, type Script } from "../queue/script.js";

/** KEYS: breakers. ARGV: worker, version, now (ms), until when it holds (ms), breaker or "" for a closed one. */
const script: Script = {
  name: "millraceBreaker",
  whenFull: true,
  lua: `
for _, text in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local said = cjson.decode(text)
  if said.worker == ARGV[1] and said.version == ARGV[2] then redis.call('ZREM', KEYS[1], text) end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
if ARGV[5] ~= '' then redis.call('ZADD', KEYS[1], ARGV[4], ARGV[5]) end
return 1`,
};

/**
 * Tells every API of a worker's breaker; null: it is closed. To be told again with each beat: it holds until it was to be
 * tried, at least as long as a beat, so that a worker that dies leaves nothing open for longer.
 */
export async function tellBreaker(
  redis: RedisClient,
  keys: ModelKeys,
  { version, worker }: Pick<WorkerBreaker, "worker" | "version">,
  breaker: WorkerBreaker | null,
): Promise<void> {
  const now = Date.now();
  const until = breaker === null ? 0 : Math.max(breaker.retryAt, now + beatTtlMs);
  await runScript(
    redis,
    script,
    [keys.breakers],
    [worker, version, now, until, breaker ? JSON.stringify(breaker) : ""],
  );
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
