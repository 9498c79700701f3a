import { type Announcement, beatTtlMs } from "../announcement.js";
import type { RedisClient } from "../connect-redis.js";
import { keptEvents } from "../job.js";
import { type ModelKeys, registryKey } from "../keys.js";
import { runScript, type Script } from "./script.js";

/**
 * KEYS: versions, beats, queue meta. ARGV: version, digest, announcement, worker, now (ms), alive until (ms), events kept.
 * Other bytes under a version that a living worker serves are refused; the first one there is right.
 */
const announceLua = `
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  local digest = cjson.decode(known).digest
  if digest ~= ARGV[2] then
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[5], '+inf')) do
      local worker, version = string.match(member, '^(.-)|(.*)$')
      if version == ARGV[1] and worker ~= ARGV[4] then return {'conflict', digest} end
    end
  end
end
redis.call('HSETNX', KEYS[3], 'opts.maxLenEvents', ARGV[7])
redis.call('ZADD', KEYS[2], ARGV[6], ARGV[4] .. '|' .. ARGV[1])
if known == ARGV[3] then return {'same'} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return {'new'}
`;

const announceScript: Script = { name: "millraceAnnounce", lua: announceLua };

/** Tells every API, for good, of a version that this worker serves; resolves to the digest that stands against it. */
export async function announceVersion(
  redis: RedisClient,
  prefix: string,
  keys: ModelKeys,
  announcement: Announcement,
  worker: string,
): Promise<{ announced: true } | { announced: false; servedDigest: string }> {
  const now = Date.now();
  const [outcome, digest] = (await runScript(
    redis,
    announceScript,
    [keys.versions, keys.beats, `${keys.queue}meta`],
    [announcement.version, announcement.digest, JSON.stringify(announcement), worker, now, now + beatTtlMs, keptEvents],
  )) as [string, string?];
  if (outcome === "conflict") return { announced: false, servedDigest: digest as string };
  // The registry is in a slot of its own, so it cannot be part of the step; a worker that dies here says it again.
  if (outcome === "new") await redis.hincrby(registryKey(prefix), announcement.model, 1);
  else await redis.hsetnx(registryKey(prefix), announcement.model, 1);
  return { announced: true };
}

/** Says that the worker lives and serves these versions, and drops the beats of those that have been silent for long. */
export async function beat(redis: RedisClient, keys: ModelKeys, worker: string, versions: string[]): Promise<void> {
  const now = Date.now();
  const members = versions.flatMap((version) => [now + beatTtlMs, `${worker}|${version}`]);
  await redis.zadd(keys.beats, ...members);
  await redis.zremrangebyscore(keys.beats, "-inf", now - 60_000);
}

/** Says that the worker serves none of these any more. */
export async function endBeat(redis: RedisClient, keys: ModelKeys, worker: string, versions: string[]): Promise<void> {
  await redis.zrem(keys.beats, ...versions.map((version) => `${worker}|${version}`));
}
