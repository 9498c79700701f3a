import { setTimeout as delay } from "node:timers/promises";
import { Gauge, type Registry } from "prom-client";
import type { RedisClient } from "../redis/connect-redis.js";
import { bullKeys } from "../redis/key-names.js";
import type { ModelKeys } from "../redis/keys.js";
import { mastersOf } from "../redis/node-of-key.js";
import { memoryOf, type Persistence, persistenceOf, type Replication, replicationOf } from "../redis/redis-info.js";
import type { Clock } from "../redis/store-clock.js";
import { dueScore, jobsByState, queueDepths, waitingLoad } from "./queue-depths.js";

/** A scrape must not wait as long as a worker waits for Redis. */
const deadlineMs = 3000;

/** A model whose backlog is told. */
export interface BacklogModel {
  name: string;
  keys: ModelKeys;
  workersAlive: number;
}

export interface BacklogSource {
  /** The models; null where another process tells of them, and this one only whether Redis answers. */
  models(): Promise<readonly BacklogModel[] | null>;
  /** Limits of waiting work of a model, where this process knows them. */
  limits?: { jobs: number; rows: number; bytes: number };
}

/**
 * Gauges that each scrape reads from Redis: depth and age of every queue, deliveries, living workers, memory,
 * persistence and replicas. Some commands a model, whatever the depths. While Redis is away the other metrics are still
 * told, and `ml_redis_up` is 0. APIs and workers have the same gauges, so that alerts on them outlive either.
 */
export function registerBacklogMetrics(
  register: Registry,
  redis: RedisClient,
  clock: Clock,
  source: BacklogSource,
): void {
  let reading: Promise<Backlog | "told by another" | "away"> | null = null;
  // A scrape collects all gauges in one turn, and all of them tell of the same moment.
  const read = () => {
    reading ??= readInTime(redis, source, clock.now()).finally(() => {
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
        if (typeof backlog === "object") tell(this, backlog);
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
  const { limits } = source;
  if (limits !== undefined) {
    gauge(
      "ml_queue_limit_ratio",
      "Part of a limit of waiting work that is taken up; new work is refused at 1",
      ["model", "limit"],
      (to, { models }) => {
        for (const { depths, load, model } of models) {
          to.set({ model, limit: "jobs" }, depths.waiting / limits.jobs);
          to.set({ model, limit: "rows" }, load.rows / limits.rows);
          to.set({ model, limit: "bytes" }, load.bytes / limits.bytes);
          to.set({ model, limit: "batch_rows" }, depths.batch_rows / limits.rows);
        }
      },
    );
  }
  gauge("ml_redis_memory_bytes", "Memory of Redis: used, and max, 0 without a limit", ["kind"], (to, { memory }) => {
    for (const [kind, bytes] of Object.entries(memory)) to.set({ kind }, bytes);
  });
  gauge(
    "ml_redis_persistence_ok",
    "1 if Redis' last write of that kind succeeded on every master: aof_write, aof_rewrite, snapshot",
    ["kind"],
    (to, { persistence }) => {
      for (const { ok } of persistence) {
        for (const [kind, well] of Object.entries(ok)) {
          const everywhere = persistence.every((other) => other.ok[kind as keyof typeof ok] !== false);
          to.set({ kind }, well && everywhere ? 1 : 0);
        }
      }
    },
  );
  gauge("ml_redis_aof_bytes", "Size of the append-only files of all masters", ["file"], (to, { persistence }) => {
    const sizes = persistence.flatMap(({ aofBytes }) => aofBytes ?? []);
    if (sizes.length > 0) to.set({ file: "current" }, sum(sizes));
  });
  gauge("ml_redis_replicas", "Replicas that follow, of each master", ["master"], (to, { replication }) => {
    for (const [master, { online }] of replication) to.set({ master }, online);
  });
  gauge(
    "ml_redis_replica_lag",
    "The replica that is the furthest behind its master: bytes, and seconds since it was heard of",
    ["master", "unit"],
    (to, { replication }) => {
      for (const [master, { lagBytes, lagSeconds, online }] of replication) {
        if (online === 0) continue;
        to.set({ master, unit: "bytes" }, lagBytes);
        to.set({ master, unit: "seconds" }, lagSeconds);
      }
    },
  );
  new Gauge({
    name: "ml_redis_up",
    help: "1 if this process can read queue state from Redis",
    registers: [register],
    async collect() {
      this.set((await read()) === "away" ? 0 : 1);
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
  persistence: Persistence[];
  /** By the master's address, which is "" without a cluster. */
  replication: [master: string, Replication][];
}

async function readInTime(
  redis: RedisClient,
  source: BacklogSource,
  nowMs: number,
): Promise<Backlog | "told by another" | "away"> {
  // A patient connection would keep the commands of every scrape.
  if (redis.status !== "ready") return "away";
  const ended = new AbortController();
  const late = delay(deadlineMs, "away" as const, { signal: ended.signal, ref: false }).catch(() => "away" as const);
  const backlog = await Promise.race([readBacklog(redis, source, nowMs).catch(() => "away" as const), late]);
  ended.abort();
  return backlog;
}

async function readBacklog(
  redis: RedisClient,
  source: BacklogSource,
  nowMs: number,
): Promise<Backlog | "told by another"> {
  const told = await source.models();
  if (told === null) return "told by another";
  const masters = mastersOf(redis);
  // All in one, so that none of them fails unheard while another is waited for.
  const [models, memories, persistence, replication] = await Promise.all([
    Promise.all(told.map((model) => backlogOf(redis, model, nowMs))),
    Promise.all(masters.map(([, node]) => memoryOf(node))),
    Promise.all(masters.map(([, node]) => persistenceOf(node))),
    Promise.all(masters.map(async ([name, node]): Promise<[string, Replication]> => [name, await replicationOf(node)])),
  ]);
  // Each master of a cluster has its own limit.
  const memory = { used: sum(memories.map(({ used }) => used)), max: sum(memories.map(({ max }) => max)) };
  return { readAt: nowMs, models, memory, persistence, replication };
}

async function backlogOf(
  redis: RedisClient,
  { keys, name, workersAlive }: BacklogModel,
  nowMs: number,
): Promise<Backlog["models"][number]> {
  const [depths, load, deliveries, dueAt] = await Promise.all([
    queueDepths(redis, keys, nowMs),
    waitingLoad(redis, keys),
    jobsByState(redis, keys.webhookQueue, nowMs),
    nextDueAt(redis, keys.queue, nowMs),
  ]);
  return { model: name, workersAlive, depths, load, deliveries, dueAt };
}

const sum = (amounts: readonly number[]): number => amounts.reduce((total, amount) => total + (amount || 0), 0);

/** When the jobs at the heads of a queue were due; the earlier one, null where none waits. */
async function nextDueAt(redis: RedisClient, queue: string, nowMs: number): Promise<number | null> {
  const heads = await Promise.all([
    redis.lindex(`${queue}${bullKeys.wait}`, -1),
    redis.zrange(`${queue}${bullKeys.prioritized}`, "0", "0"),
    redis.zrangebyscore(`${queue}${bullKeys.delayed}`, "-inf", dueScore(nowMs), "LIMIT", 0, 1),
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
