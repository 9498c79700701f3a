import type { RedisClient } from "../redis/connect-redis.js";
import { runScript, type Script } from "./queue/script.js";

/** KEYS: lease. ARGV: who asks, for how long (ms). */
const script: Script = {
  name: "millraceLease",
  whenFull: true,
  lua: `
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
-- Renewed when half of it is over, because every write may be an fsync.
if not holder or redis.call('PTTL', KEYS[1]) < ARGV[2] / 2 then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1`,
};

/** Takes or keeps a lease; resolves to whether it is held for at least half of `ttlMs` from now on. The key has a hash tag. */
export async function holdLease(redis: RedisClient, key: string, holder: string, ttlMs: number): Promise<boolean> {
  return (await runScript(redis, script, [key], [holder, ttlMs])) === 1;
}
