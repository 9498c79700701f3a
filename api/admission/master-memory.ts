import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { Cluster, type Redis } from "ioredis";

/** Every master, by its address; one that is no cluster's by "". */
export const mastersOf = (redis: RedisClient): [address: string, node: Redis][] =>
  redis instanceof Cluster
    ? redis.nodes("master").map((node) => [`${node.options.host}:${node.options.port}`, node])
    : [["", redis]];

/** What a master uses and may use, in bytes, 0 for no limit; NaN for what it does not tell. Rejects while it is away. */
export async function memoryOf(node: Redis): Promise<{ used: number; max: number }> {
  const text = await node.info("memory");
  const field = (key: string) => Number(new RegExp(`^${key}:(\\d+)`, "m").exec(text)?.[1] ?? Number.NaN);
  return { used: field("used_memory"), max: field("maxmemory") };
}
