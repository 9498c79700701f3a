import { withSecretFiles } from "@millrace/shared/config/secret-files.js";
import { closeRedis, openRedis, type RedisClient, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl, type RedisTarget, withPassword } from "@millrace/shared/redis/redis-url.js";

const connectMs = 5000;

/** Calls `act` with a connection to the Redis that the environment names, and the prefix of its keys. */
export async function withRedis<T>(
  environment: Record<string, string | undefined>,
  act: (redis: RedisClient, prefix: string) => Promise<T>,
): Promise<T> {
  const { env, problems } = withSecretFiles(environment);
  if (problems.length > 0) throw new Error(problems.join("\n"));
  if (!env.REDIS_URL) throw new Error("REDIS_URL is missing: set it to the Redis of the APIs");
  const redis = openRedis(targetOf(env.REDIS_URL, env.REDIS_PASSWORD), "fail-fast", "millrace-cli");
  redis.on("error", () => undefined);
  try {
    await whenReady(redis, connectMs);
    return await act(redis, env.REDIS_KEY_PREFIX || "mr");
  } finally {
    closeRedis(redis);
  }
}

function targetOf(url: string, password: string | undefined): RedisTarget {
  try {
    return withPassword(parseRedisUrl(url), password || undefined);
  } catch (fault) {
    throw new Error(`REDIS_URL ${(fault as Error).message}`);
  }
}
