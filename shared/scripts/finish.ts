import type { RedisClient } from "../connect-redis.js";
import type { ModelKeys } from "../keys.js";
import { encodeResult, type StoredResult } from "../prediction.js";
import { runScript, type Script } from "./script.js";

/**
 * The one step that makes predictions final. A result is written once and never changed, and only by who holds the
 * job's lock, so that a worker that froze and woke up cannot overwrite anything; whoever waits is told in the same step.
 *
 * KEYS: running, deaths. ARGV: queue prefix, `…/result:`, `…/watchers:`, channel prefix, TTL (s), largest notice (bytes),
 * then for each prediction: id, lock token ("" for an end that needs no lock), stored result.
 */
const lua = `
local outcomes = {}
local limit = tonumber(ARGV[6])
for i = 7, #ARGV, 3 do
  local id, token, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local outcome
  if token ~= '' and redis.call('GET', ARGV[1] .. id .. ':lock') ~= token then
    outcome = 'lost'
  elseif token == '' and redis.call('HEXISTS', KEYS[1], id) == 1 then
    outcome = 'running'
  elseif redis.call('SET', ARGV[2] .. id, text, 'EX', ARGV[5], 'NX') then
    outcome = 'written'
    redis.call('HDEL', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
    local watchers = redis.call('SMEMBERS', ARGV[3] .. id)
    if #watchers > 0 then
      local notice = id .. '\\n'
      if #text <= limit then notice = notice .. text end
      for _, api in ipairs(watchers) do redis.call('PUBLISH', ARGV[4] .. api, notice) end
      redis.call('DEL', ARGV[3] .. id)
    end
    if token == '' then redis.call('HSET', ARGV[1] .. id, 'fin', '1') end
  else
    outcome = 'final'
    redis.call('HDEL', KEYS[1], id)
  end
  outcomes[#outcomes + 1] = outcome
end
return outcomes
`;

const script: Script = { name: "millraceFinish", lua };

const largestNoticeBytes = 65_536;

export interface Finish {
  id: string;
  /** The job's lock token; null for a prediction that ends before it runs, such as by expiry. */
  token: string | null;
  result: StoredResult;
}

/**
 * `written`: it is final now. `final`: it was final before, and stays as it was. `lost`: the job is somebody else's by
 * now, and nothing was written. `running`: it was to end without a lock, but it runs, and nothing was written.
 */
export type FinishOutcome = "written" | "final" | "lost" | "running";

/** Makes predictions of one model final, all of them in one step; the outcomes are in the order of `finishes`. */
export async function finishPredictions(
  redis: RedisClient,
  keys: ModelKeys,
  finishes: readonly Finish[],
  settings: { resultTtlSeconds: number; channelPrefix: string },
): Promise<FinishOutcome[]> {
  const args: (string | number)[] = [
    keys.queue,
    keys.result(""),
    keys.watchers(""),
    settings.channelPrefix,
    settings.resultTtlSeconds,
    largestNoticeBytes,
  ];
  for (const { id, token, result } of finishes) args.push(id, token ?? "", encodeResult(result));
  return (await runScript(redis, script, [keys.running, keys.deaths], args)) as FinishOutcome[];
}
