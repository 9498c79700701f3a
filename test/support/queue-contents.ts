import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";

/** Contents of all keys under a prefix, by the rest of the key. Stream ids, which are times, are left out. */
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
 * The same with waiting jobs in one form: BullMQ keeps jobs without a priority in a list, our queue keeps a list for
 * the jobs of a single owner. `waits` are the ids in the order in which they will be taken.
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
 * A job without options that repeat other fields of it (its id, its timestamp) and without attempts, which the manifest
 * sets, not the job; see `workers/jobs/model-consumer.ts`.
 */
function readable(hash: Record<string, string>): Record<string, unknown> {
  if (hash.opts === undefined) return hash;
  const { attempts: _attempts, jobId: _id, timestamp: _timestamp, ...opts } = JSON.parse(hash.opts);
  return { ...hash, data: JSON.parse(hash.data as string), opts };
}
