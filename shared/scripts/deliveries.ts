import type { RedisClient } from "../redis/connect-redis.js";
import type { ModelKeys } from "../redis/keys.js";
import { bullAddLua } from "./queue/bullmq-add.js";
import { runScript, type Script } from "./queue/script.js";

/**
 * Webhook deliveries, which rest on these rules; a batch is to them what a prediction is:
 * - Whoever asks for a webhook becomes a follower of the prediction in the step that accepts or joins it, with an id
 *   for each delivery that may come of it.
 * - The step that makes the prediction final turns its followers into deliveries: record, copy of the body and job of
 *   the model's delivery queue, all in the model's slot. No process has to live for it.
 * - The start is told when the run begins; who joins after that is told of it together with the end.
 * - A delivery that exists is not made again, so every step here may be repeated.
 * - The body is kept once for all followers, counted, until each one's schedule has ended; after that for the result time.
 */
export const predictionEvents = ["prediction.started", "prediction.completed"] as const;
export type WebhookEvent = (typeof predictionEvents)[number] | "batch.completed";

export interface Follower {
  owner: string;
  url: string;
  /** Event → delivery id. */
  ids: Partial<Record<WebhookEvent, string>>;
}

/** How long a delivery is kept while its schedule runs. */
export const deliveryKeptMs = 30 * 86_400_000;

/**
 * Lua: `deliver(base, webhook queue prefix, prediction id, interest, event, body, now)`, where `interest` is the list that
 * `keys.interest` names; needs `bullAddLua` before it.
 */
export const deliverLua = `
local function deliver(base, queue, id, interest, event, body, now)
  local bodyKey = base .. '/webhook-body:' .. id .. ':' .. event
  local made = 0
  for _, text in ipairs(interest) do
    local follower = string.sub(text, 1, 1) == 'f' and cjson.decode(string.sub(text, 2))
    local did = follower and follower.ids[event]
    local key = did and (base .. '/delivery:' .. did)
    -- One whose record is forgotten, while its job is still shown, was made before.
    if did and redis.call('EXISTS', key, queue .. did) == 0 then
      redis.call('HSET', key, 'owner', follower.owner, 'url', follower.url, 'event', event, 'prediction', id,
        'created', now, 'state', 'pending', 'tries', 0)
      redis.call('PEXPIRE', key, ${deliveryKeptMs})
      redis.call('RPUSH', base .. '/deliveries:' .. id, did)
      bullAdd(queue, did, 'delivery', '{"v":1}', now, 0, 0)
      made = made + 1
    end
  end
  if made > 0 then
    redis.call('HSETNX', bodyKey, 'body', body)
    redis.call('HINCRBY', bodyKey, 'open', made)
    redis.call('PEXPIRE', bodyKey, ${deliveryKeptMs})
    redis.call('PEXPIRE', base .. '/deliveries:' .. id, ${deliveryKeptMs})
  end
  return made
end
`;

const startedScript: Script = {
  name: "millraceStarted",
  whenFull: true,
  lua: `${bullAddLua}${deliverLua}
local interest = redis.call('LRANGE', ARGV[1] .. '/interest:' .. ARGV[3], 0, -1)
return deliver(ARGV[1], ARGV[2], ARGV[3], interest, 'prediction.started', ARGV[4], tonumber(ARGV[5]))`,
};

/** Makes the deliveries that tell of a prediction's start, for those of its followers who want to hear of it. */
export async function deliverStarted(redis: RedisClient, keys: ModelKeys, id: string, bodyJson: string): Promise<void> {
  await runScript(redis, startedScript, [keys.delivery(id)], [keys.base, keys.webhookQueue, id, bodyJson, Date.now()]);
}

/** The body of a webhook; `atMs` is when the event happened, the same on every try. */
export const webhookBody = (event: string, atMs: number, dataJson: string): string =>
  `{"type":"${event}","timestamp":"${new Date(atMs).toISOString()}","data":${dataJson}}`;

/** A delivery as it is kept. */
export interface Delivery {
  id: string;
  owner: string;
  url: string;
  event: string;
  prediction: string;
  createdAt: number;
  state: "pending" | "delivered" | "failed";
  tries: number;
}

/** Reads a delivery; null for one that is not known. */
export async function readDelivery(redis: RedisClient, keys: ModelKeys, id: string): Promise<Delivery | null> {
  const fields = await redis.hgetall(keys.delivery(id));
  if (fields.owner === undefined) return null;
  return {
    id,
    owner: fields.owner,
    url: fields.url ?? "",
    event: fields.event ?? "",
    prediction: fields.prediction ?? "",
    createdAt: Number(fields.created),
    state: fields.state as Delivery["state"],
    tries: Number(fields.tries),
  };
}

/** What a try came to; kept for whoever asks why. */
export interface Attempt {
  at: string;
  status: number | null;
  duration_ms: number;
  error: string | null;
  /** The first bytes of the answer's body, 4 KiB at the most. */
  response: string | null;
}

/** KEYS: delivery, attempts, body, deliveries. ARGV: attempt, new state, time to keep what has ended (ms), key base. */
const attemptScript: Script = {
  name: "millraceAttempt",
  whenFull: true,
  lua: `
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('LTRIM', KEYS[2], -50, -1)
redis.call('HINCRBY', KEYS[1], 'tries', 1)
local before = redis.call('HGET', KEYS[1], 'state')
redis.call('HSET', KEYS[1], 'state', ARGV[2])
if ARGV[2] == 'pending' then
  redis.call('PEXPIRE', KEYS[2], ${deliveryKeptMs})
else
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  if before == 'pending' and redis.call('HINCRBY', KEYS[3], 'open', -1) <= 0 then
    redis.call('PEXPIRE', KEYS[3], ARGV[3])
  end
  -- The list of them all goes with the last.
  for _, did in ipairs(redis.call('LRANGE', KEYS[4], 0, -1)) do
    if redis.call('HGET', ARGV[4] .. '/delivery:' .. did, 'state') == 'pending' then return 1 end
  end
  redis.call('PEXPIRE', KEYS[4], ARGV[3])
end
return 1`,
};

/** Notes a try and what state it leaves the delivery in. */
export async function noteAttempt(
  redis: RedisClient,
  keys: ModelKeys,
  delivery: Delivery,
  attempt: Attempt,
  state: Delivery["state"],
  resultTtlMs: number,
): Promise<void> {
  const bodyKey = keys.webhookBody(delivery.prediction, delivery.event);
  await runScript(
    redis,
    attemptScript,
    [keys.delivery(delivery.id), keys.attempts(delivery.id), bodyKey, keys.deliveries(delivery.prediction)],
    [JSON.stringify(attempt), state, resultTtlMs, keys.base],
  );
}

/** KEYS: delivery, body, deliveries. ARGV: owner, delivery id, webhook queue prefix, now. */
const redeliverScript: Script = {
  name: "millraceRedeliver",
  lua: `${bullAddLua}
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] or redis.call('HEXISTS', KEYS[2], 'body') == 0 then return 'unknown' end
if redis.call('HGET', KEYS[1], 'state') == 'pending' then return 'pending' end
local times = redis.call('HINCRBY', KEYS[1], 'redelivered', 1)
redis.call('HSET', KEYS[1], 'state', 'pending')
redis.call('HINCRBY', KEYS[2], 'open', 1)
redis.call('PEXPIRE', KEYS[1], ${deliveryKeptMs})
redis.call('PEXPIRE', KEYS[2], ${deliveryKeptMs})
redis.call('PEXPIRE', KEYS[3], ${deliveryKeptMs})
bullAdd(ARGV[3], ARGV[2] .. '-' .. times, 'delivery', '{"v":1}', tonumber(ARGV[4]), 0, 0)
return 'queued'`,
};

/** Sends an ended delivery again, under the same id; `pending`: it is still on its way. */
export async function redeliver(
  redis: RedisClient,
  keys: ModelKeys,
  delivery: Delivery,
  owner: string,
): Promise<"queued" | "pending" | "unknown"> {
  const { event, prediction } = delivery;
  const scriptKeys = [keys.delivery(delivery.id), keys.webhookBody(prediction, event), keys.deliveries(prediction)];
  const outcome = await runScript(redis, redeliverScript, scriptKeys, [
    owner,
    delivery.id,
    keys.webhookQueue,
    Date.now(),
  ]);
  return outcome as "queued" | "pending" | "unknown";
}

/** The delivery that a job of the delivery queue is for. */
export const deliveryOfJob = (jobId: string): string => jobId.replace(/-\d+$/, "");
