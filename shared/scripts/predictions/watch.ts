import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { runScript, type Script } from "../queue/script.js";

/** KEYS: interest, starts, and where it is known the key whose being there means that it has ended. ARGV: entry, id, 1 for the start too. */
const script: Script = {
  name: "millraceWatch",
  whenFull: true,
  lua: `
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
if not redis.call('LPOS', KEYS[1], ARGV[1]) and redis.call('RPUSH', KEYS[1], ARGV[1]) == 1 then
  redis.call('EXPIRE', KEYS[1], 86400)
end
if ARGV[3] == '1' then
  redis.call('SADD', KEYS[2], ARGV[2])
  redis.call('EXPIRE', KEYS[2], 86400)
end
return 1`,
};

/**
 * Notes that an API is to be told when a prediction ends, and when it starts if `start` says so; lasts a day. Nothing is noted of one
 * that has its `result` already, for nobody would take the note away.
 */
export async function watchPrediction(
  redis: RedisClient,
  keys: Pick<ModelKeys, "interest" | "starts">,
  id: string,
  apiId: string,
  { result, start }: { start: boolean; result?: string },
): Promise<void> {
  const scriptKeys = [keys.interest(id), keys.starts, ...(result === undefined ? [] : [result])];
  await runScript(redis, script, scriptKeys, [`w${apiId}`, id, start ? 1 : 0]);
}
