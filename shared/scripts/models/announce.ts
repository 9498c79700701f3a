import { type Announcement, beatTtlMs } from "../../models/announcement.js";
import { keptEvents } from "../../predictions/job.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { type ModelKeys, registryKey } from "../../redis/keys.js";
import { runScript, type Script } from "../queue/script.js";
import { keptChanges } from "./traffic.js";

/**
 * KEYS: versions, beats, queue meta, traffic, traffic history, unjoined. ARGV: version, digest, announcement, worker, now (ms),
 * alive until (ms), events kept, changes kept. Other bytes under a version that a living worker serves are refused; the
 * first one there is right. Where nobody has said how traffic is split, a new highest version takes it, which is a change
 * like any other and can be rolled back. Where nobody else serves the version it is loaded anew, and what runs have shown
 * of it is forgotten.
 */
const announceLua = `
local known = redis.call('HGET', KEYS[1], ARGV[1])
local digest = known and cjson.decode(known).digest
local highest, served
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[5], '+inf')) do
  local worker, version = string.match(member, '^(.-)|(.*)$')
  if version == ARGV[1] then
    if digest and digest ~= ARGV[2] and worker ~= ARGV[4] then return {'conflict', digest} end
    served = served or worker ~= ARGV[4]
  elseif not highest or tonumber(version) > highest then
    highest = tonumber(version)
  end
end
if not known and highest and tonumber(ARGV[1]) > highest then
  local split = redis.call('HGET', KEYS[4], 'current')
  if not split or string.sub(split, 1, 15) == '{"weights":null' then
    local before = string.gsub(split or '{"weights":null,"shadow":[]}', 'null', '{"' .. string.format('%d', highest) .. '":1}', 1)
    redis.call('LPUSH', KEYS[5], before)
    redis.call('LTRIM', KEYS[5], 0, ARGV[8] - 1)
    redis.call('HINCRBY', KEYS[4], 'revision', 1)
    redis.call('HSET', KEYS[4], 'changed', ARGV[5])
  end
end
if not served then redis.call('HDEL', KEYS[6], ARGV[1]) end
redis.call('HSETNX', KEYS[3], 'opts.maxLenEvents', ARGV[7])
redis.call('ZADD', KEYS[2], ARGV[6], ARGV[4] .. '|' .. ARGV[1])
if known == ARGV[3] then return {'same'} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return {'new'}
`;

const announceScript: Script = { name: "millraceAnnounce", lua: announceLua, whenFull: true };

/** KEYS: registry. ARGV: model, 1 where its announcements have changed. It is done when Redis is full, as `script.ts` has it. */
const registerScript: Script = {
  name: "millraceRegister",
  lua: `
redis.call('HDEL', KEYS[1], '')
if ARGV[2] == '1' or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then redis.call('HINCRBY', KEYS[1], ARGV[1], 1) end
return 1`,
};

/** KEYS: beats or leaving. ARGV: long silent before (ms), then until when it lives (ms) and the member in turn. */
const beatScript: Script = {
  name: "millraceBeat",
  whenFull: true,
  lua: `
if #ARGV > 1 then redis.call('ZADD', KEYS[1], unpack(ARGV, 2)) end
return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])`,
};

/** Tells every API, for good, of a version that this worker serves; resolves to the digest that stands against it. */
export async function announceVersion(
  redis: RedisClient,
  prefix: string,
  keys: ModelKeys,
  announcement: Announcement,
  worker: string,
): Promise<{ announced: true } | { announced: false; servedDigest: string }> {
  const now = Date.now();
  const { digest, model, version } = announcement;
  const [outcome, servedDigest] = (await runScript(
    redis,
    announceScript,
    [keys.versions, keys.beats, `${keys.queue}meta`, keys.traffic, keys.trafficHistory, keys.unjoined],
    [version, digest, JSON.stringify(announcement), worker, now, now + beatTtlMs, keptEvents, keptChanges],
  )) as [string, string?];
  if (outcome === "conflict") return { announced: false, servedDigest: servedDigest as string };
  // The registry is in a slot of its own, so it cannot be part of the step; a worker that dies here says it again.
  await runScript(redis, registerScript, [registryKey(prefix)], [model, outcome === "new" ? 1 : 0]);
  return { announced: true };
}

/** Makes every API read what is announced of a model anew. */
export const bumpRevision = (redis: RedisClient, prefix: string, model: string): Promise<number> =>
  redis.hincrby(registryKey(prefix), model, 1);

/** The digest that another living worker serves under a version; null where none does. */
export async function digestElsewhere(
  redis: RedisClient,
  keys: ModelKeys,
  version: string,
  worker: string,
): Promise<string | null> {
  const members = await redis.zrangebyscore(keys.beats, Date.now(), "+inf");
  if (!members.some((member) => member.endsWith(`|${version}`) && !member.startsWith(`${worker}|`))) return null;
  const known = await redis.hget(keys.versions, version);
  return known === null ? null : (JSON.parse(known) as Announcement).digest;
}

/** KEYS: versions, beats. ARGV: version, worker or "", now (ms). */
const retireScript: Script = {
  name: "millraceRetire",
  lua: `
redis.call('ZREM', KEYS[2], ARGV[2] .. '|' .. ARGV[1])
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[3], '+inf')) do
  if string.match(member, '|(.*)$') == ARGV[1] then return 0 end
end
return redis.call('HDEL', KEYS[1], ARGV[1])`,
};

/**
 * Takes a version back unless another living worker serves it. From then on it is unknown to whoever submits, and what was
 * accepted for it runs on the workers that it is leaving, as long as there are any.
 */
export async function retireVersion(
  redis: RedisClient,
  prefix: string,
  keys: ModelKeys,
  { model, version, worker = "" }: { model: string; version: string; worker?: string },
): Promise<void> {
  const gone = await runScript(redis, retireScript, [keys.versions, keys.beats], [version, worker, Date.now()]);
  if (gone === 1) await bumpRevision(redis, prefix, model);
}

/** Whether a job of a version can still find a worker: it is announced, or is leaving one. */
export async function isVersionKnown(redis: RedisClient, keys: ModelKeys, version: string): Promise<boolean> {
  if ((await redis.hexists(keys.versions, version)) === 1) return true;
  const leaving = await redis.zrangebyscore(keys.leaving, Date.now(), "+inf");
  return leaving.some((member) => member.endsWith(`|${version}`));
}

/**
 * Says that the worker lives, which versions it serves and which are leaving it, and drops the beats of those that have
 * been silent for long.
 */
export async function beat(
  redis: RedisClient,
  keys: ModelKeys,
  worker: string,
  { leaving, serving }: { serving: readonly string[]; leaving: readonly string[] },
): Promise<void> {
  const now = Date.now();
  for (const [key, versions] of [
    [keys.beats, serving],
    [keys.leaving, leaving],
  ] as const) {
    const members = versions.flatMap((version) => [now + beatTtlMs, `${worker}|${version}`]);
    await runScript(redis, beatScript, [key], [now - 60_000, ...members]);
  }
}

/** Says that the worker serves none of these any more. */
export async function endBeat(redis: RedisClient, keys: ModelKeys, worker: string, versions: string[]): Promise<void> {
  if (versions.length === 0) return;
  const members = versions.map((version) => `${worker}|${version}`);
  await redis.zrem(keys.beats, ...members);
  await redis.zrem(keys.leaving, ...members);
}
