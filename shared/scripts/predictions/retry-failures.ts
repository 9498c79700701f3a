import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import {
  type AcceptAnswer,
  type Acceptance,
  type AcceptOutcome,
  type AcceptSettings,
  acceptArguments,
  acceptLua,
  acceptOutcome,
} from "../queue/accept.js";
import { runScript, type Script } from "../queue/script.js";

/**
 * Accepts predictions in place of failed ones, and takes those off the failures in the same step: `accept.ts` runs inside
 * word for word, so whatever holds for a submission holds for these.
 *
 * KEYS: failures, counter, then those of `accept.ts`. ARGV: 1 for only those that are still among the failures, time
 * to keep the counter (s) or 0 for none, length of what `accept.ts` is told of all and of each; that of all; then for
 * each the failed one's id and what it is told of the new one.
 */
const script: Script = {
  name: "millraceRetryFailures",
  lua: `
local function accept(KEYS, ARGV) ${acceptLua} end
local head, length = tonumber(ARGV[3]), tonumber(ARGV[4])
local told, accepted, answers = {}, {}, {}
for i = 5, 4 + head do told[#told + 1] = ARGV[i] end
local n = 0
for i = 5 + head, #ARGV, 1 + length do
  n = n + 1
  if ARGV[1] == '1' and not redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    answers[n] = {'taken'}
  else
    for k = i + 1, i + length do told[#told + 1] = ARGV[k] end
    accepted[#accepted + 1] = {n, ARGV[i]}
  end
end
if #accepted == 0 then return answers end
local said = accept({unpack(KEYS, 3)}, told)
local queued = {}
for k, answer in ipairs(said) do
  answers[accepted[k][1]] = answer
  if answer[1] == 'queued' then queued[#queued + 1] = accepted[k][2] end
end
if #queued > 0 then
  redis.call('ZREM', KEYS[1], unpack(queued))
  if ARGV[2] ~= '0' then
    redis.call('INCRBY', KEYS[2], #queued)
    redis.call('EXPIRE', KEYS[2], ARGV[2])
  end
end
return answers
`,
};

/** A failed prediction, and the new one that is to take its place. */
export interface FailureRetry {
  failed: string;
  acceptance: Acceptance;
}

/** As for any submission, or `taken`: it is no failure any more, because it was tried again or its result time is over. */
export type RetryOutcome = AcceptOutcome | { kind: "taken" };

export interface RetrySettings extends AcceptSettings {
  nowMs: number;
  /** Where the failed ones are noted: `keys.failures` of their owner and code. */
  failures: string;
  /** What counts those that were accepted, and how long it is kept; then only what is a failure still is accepted. */
  once?: { counter: string; keptSeconds: number };
}

/** Accepts predictions of one model, owner and code anew; outcomes in the order given. */
export async function retryFailures(
  redis: RedisClient,
  keys: ModelKeys,
  retries: readonly FailureRetry[],
  { failures, once, ...settings }: RetrySettings,
): Promise<RetryOutcome[]> {
  const acceptances = retries.map(({ acceptance }) => acceptance);
  const { entries, head, keys: acceptKeys } = acceptArguments(keys, acceptances, settings);
  const args = [once === undefined ? 0 : 1, once?.keptSeconds ?? 0, head.length, entries[0]?.length ?? 0, ...head];
  for (const [i, { failed }] of retries.entries()) args.push(failed, ...(entries[i] as (string | number)[]));
  const scriptKeys = [failures, once?.counter ?? failures, ...acceptKeys];
  const answers = (await runScript(redis, script, scriptKeys, args)) as (["taken"] | AcceptAnswer)[];
  return answers.map((answer) => (answer[0] === "taken" ? { kind: "taken" } : acceptOutcome(answer)));
}
