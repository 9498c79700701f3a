import type { PredictionJob } from "../../predictions/job.js";
import { encodeResult, type StoredResult, storedTensorsStart } from "../../predictions/prediction.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import type { FailureCode } from "../../service/failure-codes.js";
import { deliverLua, webhookBody } from "../deliveries.js";
import { bullAddLua } from "../queue/bullmq-add.js";
import { runScript, type Script } from "../queue/script.js";
import { noteFailureLua } from "./failures.js";

/**
 * The one step that makes predictions final. A result is written once and never changed, and by a worker only while it
 * holds the job's lock, so that one that froze and woke up cannot overwrite anything. In the same step whoever waits is
 * told, the followers become deliveries, and the deduplication key turns from "on its way" into the cache entry.
 *
 * KEYS: running, deaths, cache index. ARGV: queue prefix, key base, channel prefix, TTL (s), largest notice (bytes), now
 * (ms), webhook queue prefix, cancel channel, cache entries at the most, worker or "";
 * then for each prediction: id, lock token (""
 * where it must not run yet, "*" for an end that is not the worker's), stored result, deduplication hash or "", seconds
 * to cache the output, where it begins in the result and its length (bytes), webhook body up to its data, 1 if it had
 * started, what becomes of an input that is a blob: "drop", "keep" for the result time, or "", where a failure is noted
 * or "".
 */
const lua = `
${bullAddLua}
${deliverLua}
${noteFailureLua}
local queue, base, channels, limit, now = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local outcomes, ended, cached = {}, {}, {}
local locks = {}
for i = 11, #ARGV, 11 do locks[#locks + 1] = queue .. ARGV[i] .. ':lock' end
locks = redis.call('MGET', unpack(locks))
for i = 11, #ARGV, 11 do
  local id, token, text, dedup = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local fenced = token ~= '' and token ~= '*'
  local outcome
  if fenced and locks[#outcomes + 1] ~= token then
    outcome = 'lost'
    -- The note of this run goes with it, unless the job's new owner has written its own.
    local note = redis.call('HGET', KEYS[1], id)
    if note and string.match(note, '|([^|]*)$') == ARGV[10] then redis.call('HDEL', KEYS[1], id) end
  elseif token == '' and redis.call('HEXISTS', KEYS[1], id) == 1 then
    outcome = 'running'
  elseif not fenced and redis.call('EXISTS', queue .. id) == 0 then
    outcome = 'final'
  elseif redis.call('SET', base .. '/result:' .. id, text, 'EX', ARGV[4], 'NX') then
    outcome = 'written'
    ended[#ended + 1] = id
    if ARGV[i + 9] == 'drop' then
      redis.call('UNLINK', base .. '/blob:' .. id)
    elseif ARGV[i + 9] == 'keep' then
      redis.call('EXPIRE', base .. '/blob:' .. id, ARGV[4])
    end
    if ARGV[i + 10] ~= '' then noteFailure(ARGV[i + 10], id, now, tonumber(ARGV[4])) end
    if dedup ~= '' then
      local key = base .. '/dedup:' .. dedup
      local before
      if ARGV[i + 4] ~= '0' then
        local from, length = tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6])
        before = redis.call('SET', key, 'c' .. string.sub(text, from + 1, from + length), 'EX', ARGV[i + 4], 'GET')
        cached[#cached + 1] = now
        cached[#cached + 1] = dedup
      else
        before = redis.call('GETDEL', key)
      end
      -- A key that was held by another by now stays theirs; it takes a week of waiting to get there.
      if before and before ~= 'p' .. id then redis.call('SET', key, before, 'EX', 3600) end
    end
    local interest = redis.call('LRANGE', base .. '/interest:' .. id, 0, -1)
    if #interest > 0 then
      redis.call('DEL', base .. '/interest:' .. id)
      redis.call('SREM', base .. '/starts', id)
      local data = string.match(text, '\\n(.*)$')
      if ARGV[i + 8] == '1' then
        local started = string.gsub(ARGV[i + 7], 'completed', 'started', 1)
        deliver(base, ARGV[7], id, interest, 'prediction.started', started .. data .. '}', now)
      end
      deliver(base, ARGV[7], id, interest, 'prediction.completed', ARGV[i + 7] .. data .. '}', now)
      local notice = id .. '\\n'
      if #text <= limit then notice = notice .. text end
      for _, entry in ipairs(interest) do
        if string.sub(entry, 1, 1) == 'w' then redis.call('PUBLISH', channels .. string.sub(entry, 2), notice) end
      end
    end
    if not fenced then
      -- Whoever takes the job drops it; its data is no longer needed for that.
      redis.call('HSET', queue .. id, 'data', '{}')
      -- And whoever runs it has lost it, so that it writes nothing even when this result is long gone.
      redis.call('DEL', queue .. id .. ':lock')
      redis.call('PUBLISH', ARGV[8], id)
    end
  else
    outcome = 'final'
    ended[#ended + 1] = id
  end
  outcomes[#outcomes + 1] = outcome
end
if #ended > 0 then
  redis.call('HDEL', KEYS[1], unpack(ended))
  redis.call('HDEL', KEYS[2], unpack(ended))
  redis.call('ZREM', base .. '/expiring', unpack(ended))
end
if #cached > 0 then
  redis.call('ZADD', KEYS[3], unpack(cached))
  local over = redis.call('ZCARD', KEYS[3]) - tonumber(ARGV[9])
  if over > 0 then
    local oldest = redis.call('ZPOPMIN', KEYS[3], over)
    for i = 1, #oldest, 2 do
      local key = base .. '/dedup:' .. oldest[i]
      if redis.call('GETRANGE', key, 0, 0) == 'c' then redis.call('DEL', key) end
    end
  end
end
return outcomes
`;

const script: Script = { name: "millraceFinish", whenFull: true, lua };

const largestNoticeBytes = 65_536;
const largestCachedBytes = 65_536;
const cacheEntries = 10_000;

export interface Finish {
  id: string;
  /** The job's lock token; `unbegun`: only if it does not run; `any`: whatever its state, as long as it is not final. */
  by: { token: string } | "unbegun" | "any";
  result: StoredResult;
  /** The deduplication hash that it holds; null for one that was not to be joined. */
  dedup: string | null;
  /**
   * The output to answer identical submissions with, and for how long; null for one that is not to be cached. `packed`:
   * it is the result's tensors in base64, not its JSON.
   */
  cache: { outputJson: string; ttlSeconds: number; packed?: boolean } | null;
  /** Whether it ever began to run, so that there is a start to tell of. */
  started: boolean;
  /** What becomes of an input that is a blob. */
  blob?: "drop" | "keep";
  /** Why it failed, for one that did, so that it is found among its owner's failures. */
  failure?: FailureCode;
}

/**
 * `written`: it is final now. `final`: it was final before, and stays as it was. `lost`: the job is somebody else's by
 * now, and nothing was written. `running`: it was to end before it began, but it runs, and nothing was written.
 */
export type FinishOutcome = "written" | "final" | "lost" | "running";

export interface FinishSettings {
  resultTtlSeconds: number;
  channelPrefix: string;
  cancelChannel: string;
  /** Whose runs end; an API has none. */
  workerId?: string;
}

/** Makes predictions of one model final, all of them in one step; the outcomes are in the order of `finishes`. */
export async function finishPredictions(
  redis: RedisClient,
  keys: ModelKeys,
  finishes: readonly Finish[],
  settings: FinishSettings,
): Promise<FinishOutcome[]> {
  const nowMs = Date.now();
  const args: (string | number)[] = [
    keys.queue,
    keys.base,
    settings.channelPrefix,
    settings.resultTtlSeconds,
    largestNoticeBytes,
    nowMs,
    keys.webhookQueue,
    settings.cancelChannel,
    cacheEntries,
    settings.workerId ?? "",
  ];
  const bodyStart = webhookBody("prediction.completed", nowMs, "").slice(0, -1);
  for (const { blob, by, cache, dedup, failure, id, result, started } of finishes) {
    const text = encodeResult(result);
    const token = by === "unbegun" ? "" : by === "any" ? "*" : by.token;
    const bytes = cache === null ? 0 : Buffer.byteLength(cache.outputJson);
    const ttl =
      cache === null || bytes > largestCachedBytes ? 0 : Math.min(cache.ttlSeconds, settings.resultTtlSeconds);
    const from = ttl === 0 ? 0 : cache?.packed ? storedTensorsStart.length : placeOfOutput(text);
    args.push(id, token, text, dedup ?? "", ttl, from, bytes, bodyStart, started ? 1 : 0, blob ?? "");
    args.push(failure === undefined ? "" : keys.failures(result.owner, failure));
  }
  return (await runScript(redis, script, [keys.running, keys.deaths, keys.cache], args)) as FinishOutcome[];
}

/** The output stands before anything of the caller's but the form, so its place in bytes is that in the JSON alone. */
function placeOfOutput(text: string): number {
  const mark = ',"output":';
  return Buffer.byteLength(text.slice(0, text.indexOf(mark, text.indexOf("\n")))) + mark.length;
}

/** The end of a prediction that is not of a run: its input is kept with it, so that it can be tried again. */
export function endFinish(
  id: string,
  data: PredictionJob,
  by: "unbegun" | "any",
  ended: Pick<StoredResult, "owner" | "status" | "json">,
  started: boolean,
): Finish {
  const result: StoredResult = { ...ended, input: data.x };
  const finish: Finish = { id, by, result, dedup: data.d ?? null, cache: null, started };
  if (data.f !== undefined) result.form = data.f;
  if (data.b !== undefined) {
    result.inputBytes = data.b;
    finish.blob = "keep";
  }
  return finish;
}
