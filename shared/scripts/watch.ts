import type { RedisClient } from "../connect-redis.js";
import type { ModelKeys } from "../keys.js";
import { runScript, type Script } from "./script.js";

/** KEYS: interest, starts. ARGV: entry, id, 1 for the start too. A note on what ended a moment ago goes by itself. */
const script: Script = {
  name: "millraceWatch",
  whenFull: true,
  lua: `
if not redis.call('LPOS', KEYS[1], ARGV[1]) and redis.call('RPUSH', KEYS[1], ARGV[1]) == 1 then
  redis.call('EXPIRE', KEYS[1], 86400)
end
if ARGV[3] == '1' then
  redis.call('SADD', KEYS[2], ARGV[2])
  redis.call('EXPIRE', KEYS[2], 86400)
end
return 1`,
};

/** Notes that an API is to be told when a prediction ends, and when it starts if `start` says so; lasts a day. */
export async function watchPrediction(
  redis: RedisClient,
  keys: Pick<ModelKeys, "interest" | "starts">,
  id: string,
  apiId: string,
  { start }: { start: boolean },
): Promise<void> {
  await runScript(redis, script, [keys.interest(id), keys.starts], [`w${apiId}`, id, start ? 1 : 0]);
}
