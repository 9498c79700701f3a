import { Cluster, Command, type Redis } from "ioredis";
import type { RedisClient } from "./connect-redis.js";

/**
 * The connection to the node of a cluster that has a key, null where it is not known. What is no cluster is that
 * itself.
 */
export async function nodeOfKey(redis: RedisClient, key: string): Promise<Redis | null> {
  if (!(redis instanceof Cluster)) return redis;
  const known = () => {
    const address = redis.slots[new Command("get", [key]).getSlot() as number]?.[0];
    return redis.nodes("master").find(({ options }) => `${options.host}:${options.port}` === address);
  };
  const node = known();
  if (node?.status === "ready") return node;
  // A command through the cluster finds it where it has moved.
  await redis.exists(key);
  return known() ?? null;
}
