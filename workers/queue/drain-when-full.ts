import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { evenWhenFull } from "@millrace/shared/scripts/lua/even-when-full.js";

type Definition = Parameters<RedisClient["defineCommand"]>[1];

/**
 * Lets BullMQ's own steps on this connection (taking jobs, renewing locks, giving back) through when Redis has no
 * memory left. A worker ends work and so frees memory; without it a full Redis would stay full. Call it before BullMQ
 * gets the connection.
 */
export function drainWhenFull(redis: RedisClient): void {
  const define = redis.defineCommand.bind(redis);
  redis.defineCommand = (name: string, definition: Definition) => {
    // The scripts of this repository declare it themselves.
    const ours = name.startsWith("millrace");
    define(name, ours ? definition : { ...definition, lua: evenWhenFull(definition.lua) });
  };
}
