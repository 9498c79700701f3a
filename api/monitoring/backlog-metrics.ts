import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { bullKeys } from "@millrace/shared/redis/key-names.js";
import { mastersOf } from "@millrace/shared/redis/node-of-key.js";
import { Gauge, type Registry } from "prom-client";
import { dueScore, jobsByState, queueDepths, waitingLoad } from "../admission/queue-depths.js";
import { memoryOf } from "../admission/redis-memory.js";
import type { ModelDirectory } from "../models/model-directory.js";

/**
 * What a scrape reads off Redis: depth and age of every queue, deliveries, living workers, memory. Some commands a
 * model, whatever the depths. While Redis is away the rest of the metrics is told all the same, and `ml_redis_up` is 0.
 */
export function registerBacklogMetrics(register: Registry, redis: RedisClient, directory: ModelDirectory): void {
  let reading: Promise<Backlog | null> | null = null;
  // A scrape collects all gauges in one turn, and all of them tell of the same moment.
  const read = () => {
    reading ??= readBacklog(redis, directory)
      .catch(() => null)
      .finally(() => {
        reading = null;
      });
    return reading;
  };
  const gauge = (name: string, help: string, labelNames: string[], tell: (to: Gauge, backlog: Backlog) => void) =>
    new Gauge({
      name,
      help,
      labelNames,
      registers: [register],
      async collect() {
        const backlog = await read();
        this.reset();
        if (backlog !== null) tell(this, backlog);
      },
    });

  gauge(
    "ml_queue_depth",
    "Jobs of a model's queue by state; batch_rows are rows of batches that are not done",
    ["model", "state"],
    (to, { models }) => {
      for (const { depths, model } of models)
        for (const [state, count] of Object.entries(depths)) to.set({ model, state }, count);
    },
  );
  gauge(
    "ml_queue_oldest_age_seconds",
    "Waiting time of the next due job; 0 for an empty queue",
    ["model"],
    (to, { models, readAt }) => {
      for (const { dueAt, model } of models) to.set({ model }, dueAt === null ? 0 : Math.max(0, readAt - dueAt) / 1000);
    },
  );
  gauge("ml_queue_load", "Waiting single predictions: input rows or bytes", ["model", "unit"], (to, { models }) => {
    for (const { load, model } of models)
      for (const [unit, amount] of Object.entries(load)) to.set({ model, unit }, amount);
  });
  gauge("ml_webhook_queue_depth", "Webhook deliveries by state", ["model", "state"], (to, { models }) => {
    for (const { deliveries, model } of models)
      for (const [state, count] of Object.entries(deliveries)) to.set({ model, state }, count);
  });
  gauge("ml_workers_alive", "Workers serving the model with a recent heartbeat", ["model"], (to, { models }) => {
    for (const { model, workersAlive } of models) to.set({ model }, workersAlive);
  });
  gauge("ml_redis_memory_bytes", "Memory of Redis: used, and max, 0 without a limit", ["kind"], (to, { memory }) => {
    for (const [kind, bytes] of Object.entries(memory)) to.set({ kind }, bytes);
  });
  new Gauge({
    name: "ml_redis_up",
    help: "1 if this API can read queue state from Redis",
    registers: [register],
    async collect() {
      this.set((await read()) === null ? 0 : 1);
    },
  });
}

interface Backlog {
  readAt: number;
  models: {
    model: string;
    workersAlive: number;
    depths: Awaited<ReturnType<typeof queueDepths>>;
    load: Awaited<ReturnType<typeof waitingLoad>>;
    deliveries: Awaited<ReturnType<typeof jobsByState>>;
    dueAt: number | null;
  }[];
  memory: { used: number; max: number };
}

async function readBacklog(redis: RedisClient, directory: ModelDirectory): Promise<Backlog> {
  const models = directory.all().map(async ({ keys, name, workersAlive }) => ({
    model: name,
    workersAlive,
    depths: await queueDepths(redis, keys),
    load: await waitingLoad(redis, keys),
    deliveries: await jobsByState(redis, keys.webhookQueue),
    dueAt: await nextDueAt(redis, keys.queue),
  }));
  return { readAt: Date.now(), models: await Promise.all(models), memory: await readMemory(redis) };
}

/** When the jobs at the heads of a queue were due; the earlier one, null where none waits. */
async function nextDueAt(redis: RedisClient, queue: string): Promise<number | null> {
  const heads = await Promise.all([
    redis.lindex(`${queue}${bullKeys.wait}`, -1),
    redis.zrange(`${queue}${bullKeys.prioritized}`, "0", "0"),
    redis.zrangebyscore(`${queue}${bullKeys.delayed}`, "-inf", dueScore(Date.now()), "LIMIT", 0, 1),
  ]);
  const due = await Promise.all(
    heads.flat().map(async (id) => {
      const [timestamp, opts] = id === null ? [] : await redis.hmget(`${queue}${id}`, "timestamp", "opts");
      // One that was taken in between waits no longer.
      if (timestamp == null) return Number.POSITIVE_INFINITY;
      // BullMQ forgets a job's delay when it is over, but not that it was asked for.
      return Number(timestamp) + ((JSON.parse(opts ?? "{}") as { delay?: number }).delay ?? 0);
    }),
  );
  const first = Math.min(...due);
  return Number.isFinite(first) ? first : null;
}

/** Over all masters of a cluster: the sum, for each has its own limit. */
async function readMemory(redis: RedisClient): Promise<{ used: number; max: number }> {
  const memories = await Promise.all(mastersOf(redis).map(([, node]) => memoryOf(node)));
  const sum = (what: "used" | "max") => memories.reduce((total, memory) => total + (memory[what] || 0), 0);
  return { used: sum("used"), max: sum("max") };
}
