import { type Announcement, announcementSchema } from "@millrace/shared/models/announcement.js";
import { type RefusedModel, readRefusedModels } from "@millrace/shared/models/refused-models.js";
import { closeRedis, openRedis, type RedisClient, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys, registryKey } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { readStoreTime } from "@millrace/shared/redis/store-clock.js";

const connectMs = 10_000;

/** The models of an installation, as its living workers tell them. */
export interface ServedModels {
  /** The highest served version of each model, by name. */
  served: Announcement[];
  refused: RefusedModel[];
}

/** Reads from Redis the models that living workers serve and refuse; it needs no key. */
export async function readServedModels(redisUrl: string, prefix: string): Promise<ServedModels> {
  const redis = openRedis(parseRedisUrl(redisUrl), "patient", "millrace-start");
  redis.on("error", () => undefined);
  try {
    await whenReady(redis, connectMs);
    const names = (await redis.hkeys(registryKey(prefix))).sort();
    const nowMs = await readStoreTime(redis, prefix);
    const served = await Promise.all(names.map((name) => newestServed(redis, prefix, name, nowMs)));
    return { served: served.filter((one) => one !== null), refused: await readRefusedModels(redis, prefix, nowMs) };
  } finally {
    closeRedis(redis);
  }
}

async function newestServed(
  redis: RedisClient,
  prefix: string,
  model: string,
  nowMs: number,
): Promise<Announcement | null> {
  const keys = modelKeys(prefix, model);
  const members = await redis.zrangebyscore(keys.beats, nowMs, "+inf");
  const versions = members.map((member) => member.slice(member.indexOf("|") + 1)).sort((a, b) => +b - +a);
  const text = versions[0] === undefined ? null : await redis.hget(keys.versions, versions[0]);
  return text === null ? null : (announcementSchema.safeParse(JSON.parse(text)).data ?? null);
}
