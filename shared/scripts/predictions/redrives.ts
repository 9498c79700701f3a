import { keptEvents } from "../../predictions/job.js";
import {
  type Redrive,
  type RedrivePlace,
  redriveJobName,
  redrivePlaceSchema,
  redrivePlanSchema,
} from "../../predictions/redrive.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { modelKeys, noticeChannel, type RedriveKeys } from "../../redis/keys.js";
import { bullAddLua } from "../queue/bullmq-add.js";
import { type Idempotency, idempotencyHashes, idempotencyLua } from "../queue/idempotency.js";
import { runScript, type Script } from "../queue/script.js";

/**
 * Redrives, which rest on these rules:
 * - A redrive and its job come into being together. The job is done in slices, each of which sets it for the next, so that
 *   many redrives share few places and whoever dies loses a slice's time.
 * - What it does to failures, and how many that were, is written in the slot of their model (`retry-failures.ts`); what is
 *   written here, in the slot of redrives, is only how far it has looked. Looking twice is harmless.
 * - It ends once.
 */
const listedAtMost = 100;
const weekMs = 604_800_000;

/**
 * KEYS: redrive, open, owned, idempotency. ARGV: id, now (ms), queue prefix, key base, result time (ms), owner, plan, most that
 * are open, data of the job, hashes of the body or "".
 */
const makeScript: Script = {
  name: "millraceMakeRedrive",
  lua: `
${bullAddLua}
${idempotencyLua}
local id, now, queue = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if ARGV[10] ~= '' then
  local same, target = sentBefore(KEYS[4], ARGV[10])
  if same ~= nil then return same and {'replayed', target} or {'mismatch', ''} end
end
if redis.call('SCARD', KEYS[2]) >= tonumber(ARGV[8]) then return {'too many', ''} end
if ARGV[10] ~= '' then keepSent(KEYS[4], ARGV[10], id) end
redis.call('HSET', KEYS[1], 'owner', ARGV[6], 'created', ARGV[2], 'skipped', 0, 'plan', ARGV[7])
redis.call('SADD', KEYS[2], id)
redis.call('ZADD', KEYS[3], now, id)
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -${listedAtMost + 1})
redis.call('PEXPIRE', KEYS[3], 2 * ARGV[5] + ${weekMs})
redis.call('HSETNX', queue .. 'meta', 'opts.maxLenEvents', ${keptEvents})
bullAdd(queue, id, '${redriveJobName}', ARGV[9], now, 0, 0)
return {'made', id}`,
};

/**
 * Makes a redrive. `too many`: its owner has `openAtMost` that have not ended; `replayed`: this key was used for the same body
 * before, `id` is that redrive; `mismatch`: for another body.
 */
export async function makeRedrive(
  redis: RedisClient,
  keys: RedriveKeys,
  { createdAt, id, owner, plan }: Pick<Redrive, "id" | "owner" | "plan" | "createdAt">,
  openAtMost: number,
  idempotency: Idempotency | null = null,
): Promise<{ kind: "made" | "too many" | "replayed" | "mismatch"; id: string }> {
  const scriptKeys = [keys.redrive(id), keys.open(owner), keys.owned(owner)];
  scriptKeys.push(keys.idempotency(owner, idempotency?.key ?? ""));
  const { filter, rate, total } = plan;
  // For whoever looks at the queue page; what counts is the plan.
  const dataJson = JSON.stringify({ v: 1, owner, filter, rate, total });
  const args = [id, createdAt, keys.queue, keys.base, plan.accept.resultTtlMs, owner, JSON.stringify(plan), openAtMost];
  args.push(dataJson, idempotency === null ? "" : idempotencyHashes(idempotency));
  const [kind, made] = (await runScript(redis, makeScript, scriptKeys, args)) as ["made", string];
  return { kind, id: made };
}

const fields = ["owner", "plan", "created", "started", "ended", "end", "skipped", "place", "paced"] as const;

/** Reads a redrive; null for one that is not known. */
export async function readRedrive(redis: RedisClient, keys: RedriveKeys, id: string): Promise<Redrive | null> {
  const [owner, plan, created, started, ended, end, skipped, place, paced] = await redis.hmget(
    keys.redrive(id),
    ...fields,
  );
  if (owner == null || plan == null) return null;
  const at = (text: string | null | undefined) => (text == null ? null : Number(text));
  return {
    id,
    owner,
    plan: redrivePlanSchema.parse(JSON.parse(plan)),
    createdAt: Number(created),
    startedAt: at(started),
    endedAt: at(ended),
    end: (end ?? null) as Redrive["end"],
    skipped: Number(skipped ?? 0),
    place: place == null ? null : redrivePlaceSchema.parse(JSON.parse(place)),
    pacedUntil: at(paced),
  };
}

/** How many failures a redrive has had accepted anew, over all of its models, whose slots have the counts. */
export async function countRedriven(redis: RedisClient, keyPrefix: string, { id, plan }: Redrive): Promise<number> {
  const models = [...new Set(plan.lots.map(({ model }) => model))];
  const counts = await Promise.all(models.map((model) => redis.get(modelKeys(keyPrefix, model).redriven(id))));
  return counts.reduce((sum, count) => sum + Number(count ?? 0), 0);
}

/** KEYS: redrive. ARGV: key of the job's lock, its token, now (ms), place, skipped since the last time, paced until (ms). */
const advanceScript: Script = {
  name: "millraceAdvanceRedrive",
  whenFull: true,
  lua: `
if redis.call('GET', ARGV[1]) ~= ARGV[2] or redis.call('HEXISTS', KEYS[1], 'end') == 1 then return 0 end
redis.call('HSETNX', KEYS[1], 'started', ARGV[3])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'place', ARGV[4]) end
redis.call('HSET', KEYS[1], 'paced', ARGV[6])
redis.call('HINCRBY', KEYS[1], 'skipped', ARGV[5])
return 1`,
};

/** Notes how far a redrive has looked; false where it has ended or its job is somebody else's by now. */
export async function advanceRedrive(
  redis: RedisClient,
  keys: RedriveKeys,
  id: string,
  token: string,
  { pacedUntil, place, skipped }: { place: RedrivePlace | null; skipped: number; pacedUntil: number },
): Promise<boolean> {
  const args = [`${keys.queue}${id}:lock`, token, Date.now(), place === null ? "" : JSON.stringify(place), skipped];
  return (await runScript(redis, advanceScript, [keys.redrive(id)], [...args, pacedUntil])) === 1;
}

/** KEYS: redrive, open, interest. ARGV: id, now (ms), end, time to keep it (ms), channel prefix. */
const endScript: Script = {
  name: "millraceEndRedrive",
  whenFull: true,
  lua: `
if redis.call('HEXISTS', KEYS[1], 'owner') == 0 or redis.call('HEXISTS', KEYS[1], 'end') == 1 then return 0 end
redis.call('HSET', KEYS[1], 'end', ARGV[3], 'ended', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SREM', KEYS[2], ARGV[1])
for _, entry in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
  redis.call('PUBLISH', ARGV[5] .. string.sub(entry, 2), ARGV[1] .. '\\n')
end
redis.call('UNLINK', KEYS[3])
return 1`,
};

/** Ends a redrive and tells who waits for it; false where it had ended before. */
export async function endRedrive(
  redis: RedisClient,
  keys: RedriveKeys,
  keyPrefix: string,
  { id, owner, plan }: Redrive,
  end: "succeeded" | "canceled",
): Promise<boolean> {
  const args = [id, Date.now(), end, plan.accept.resultTtlMs, noticeChannel(keyPrefix, "")];
  return (await runScript(redis, endScript, [keys.redrive(id), keys.open(owner), keys.interest(id)], args)) === 1;
}
