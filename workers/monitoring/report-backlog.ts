import { type BacklogModel, registerBacklogMetrics } from "@millrace/shared/monitoring/backlog-metrics.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { backlogReporterKey, modelKeys, registryKey } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { holdLease } from "@millrace/shared/scripts/lease.js";
import type { Registry } from "prom-client";

/** How long nobody tells the backlog after the worker that did has died; below the `for` of every alert on it. */
const leaseMs = 20_000;

/**
 * Registers the backlog of all models among a worker's metrics, so that alerts on it stay awake while no API is alive.
 * One worker tells it for all, by a lease; another takes over at a scrape after it has died. Every worker tells
 * `ml_redis_up`.
 */
export function reportBacklog(
  register: Registry,
  redis: RedisClient,
  clock: Clock,
  workerId: string,
  prefix: string,
): void {
  registerBacklogMetrics(register, redis, clock, {
    models: () => readModels(redis, workerId, prefix, clock.now()),
  });
}

async function readModels(
  redis: RedisClient,
  workerId: string,
  prefix: string,
  nowMs: number,
): Promise<BacklogModel[] | null> {
  if (!(await holdLease(redis, backlogReporterKey(prefix), workerId, leaseMs))) return null;
  const names = await redis.hkeys(registryKey(prefix));
  const models = await Promise.all(
    names.sort().map(async (name): Promise<BacklogModel | null> => {
      const keys = modelKeys(prefix, name);
      const [versions, members] = await Promise.all([
        redis.hlen(keys.versions),
        redis.zrangebyscore(keys.beats, nowMs, "+inf"),
      ]);
      // One without a version is no model any more, as for an API.
      if (versions === 0) return null;
      const workers = new Set(members.map((member) => member.slice(0, member.indexOf("|"))));
      return { name, keys, workersAlive: workers.size };
    }),
  );
  return models.filter((model) => model !== null);
}
