import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";

/**
 * All keys under a prefix with their contents, by what follows it. A stream's own ids, which are times, are left out.
 */
export async function contents(redis: RedisClient, prefix: string): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  for (const key of (await redis.keys(`${prefix}*`)).sort()) {
    const name = key.slice(prefix.length);
    const type = await redis.type(key);
    if (type === "hash") found[name] = readable(await redis.hgetall(key));
    else if (type === "list") found[name] = await redis.lrange(key, 0, -1);
    else if (type === "zset")
      found[name] = ((await redis.call("ZRANGE", key, "0", "-1", "WITHSCORES")) as unknown[]).flat();
    else if (type === "stream") found[name] = (await redis.xrange(key, "-", "+")).map(([, fields]) => fields);
    else if (type === "set") found[name] = (await redis.smembers(key)).sort();
    else found[name] = await redis.get(key);
  }
  return found;
}

/**
 * The same, whichever way its jobs wait: BullMQ has a list for those without a priority, we have one for those of one
 * owner. `waits` are the ids in the order in which they will be taken.
 */
export function asOneQueue(found: Record<string, unknown>): Record<string, unknown> {
  const { pc: _pc, prioritized, wait, ...rest } = found;
  for (const [name, value] of Object.entries(rest)) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) continue;
    const { lane: _lane, priority: _priority, share: _share, ...job } = value as Record<string, unknown>;
    rest[name] = job;
  }
  const list = ((wait ?? []) as string[]).toReversed();
  return { ...rest, waits: [...list, ...((prioritized ?? []) as string[]).filter((_, i) => i % 2 === 0)] };
}

/**
 * A job's options hold what the caller of `Queue.add` said, also what is elsewhere in the job: its id, its timestamp.
 * Attempts are the manifest's, not the job's; see `workers/jobs/model-consumer.ts`.
 */
function readable(hash: Record<string, string>): Record<string, unknown> {
  if (hash.opts === undefined) return hash;
  const { attempts: _attempts, jobId: _id, timestamp: _timestamp, ...opts } = JSON.parse(hash.opts);
  return { ...hash, data: JSON.parse(hash.data as string), opts };
}
