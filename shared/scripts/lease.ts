import type { RedisClient } from "../redis/connect-redis.js";
import { defineScript } from "./lua/define-script.js";
import { answers, number, text } from "./lua/fields.js";

const script = defineScript({
  name: "millraceLease",
  file: "lease",
  keys: { lease: text("The lease, with its holder as value.") },
  fields: { holder: text("Name of the caller."), ttlMs: number("Duration of the lease.") },
  answer: answers<0 | 1>("1: it is held."),
  whenFull: true,
});

/**
 * Takes or renews a lease; resolves to whether it is held for at least half of `ttlMs` from now on. The key must have a
 * hash tag.
 */
export async function holdLease(redis: RedisClient, key: string, holder: string, ttlMs: number): Promise<boolean> {
  return (await script.run(redis, { keys: { lease: key }, fields: { holder, ttlMs } })) === 1;
}
