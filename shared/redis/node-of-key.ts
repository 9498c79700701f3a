import { Cluster, Command, type Redis } from "ioredis";
import type { RedisClient } from "./connect-redis.js";

/** Every master with its address, which is "" without a cluster. */
export const mastersOf = (redis: RedisClient): [address: string, node: Redis][] =>
  redis instanceof Cluster
    ? redis.nodes("master").map((node) => [`${node.options.host}:${node.options.port}`, node])
    : [["", redis]];

/** The hash slot of a key. */
export const slotOfKey = (key: string): number => new Command("get", [key]).getSlot() as number;

/** The address of the master that has a key, as `mastersOf` has it; "" where it is not known, too. */
export function addressOfKey(redis: RedisClient, key: string): string {
  if (!(redis instanceof Cluster)) return "";
  return redis.slots[slotOfKey(key)]?.[0] ?? "";
}

/** The connection to the master that has a key; the connection itself without a cluster, null where it is not known. */
export async function nodeOfKey(redis: RedisClient, key: string): Promise<Redis | null> {
  if (!(redis instanceof Cluster)) return redis;
  const known = () => {
    const address = addressOfKey(redis, key);
    return mastersOf(redis).find(([name]) => name === address)?.[1];
  };
  const node = known();
  if (node?.status === "ready") return node;
  // A command through the cluster finds it where it has moved.
  await redis.exists(key);
  return known() ?? null;
}
