import { setTimeout as delay } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";
import { beatEveryMs, beatTtlMs } from "@millrace/shared/models/beat-times.js";
import { closeRedis, openRedis } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys, workersKey } from "@millrace/shared/redis/keys.js";
import { StoreClock } from "@millrace/shared/redis/store-clock.js";
import { beatsOf } from "@millrace/shared/scripts/models/beats.js";
import type { BeatAnswer, BeatOrder, BeatSettings, BeatVersions } from "./beats.js";

/**
 * The thread of a worker's heartbeats, with a connection of its own, so that nothing that keeps the main thread busy
 * delays them. It beats for a main thread that makes progress, and stops where that has hung for too long. It imports
 * little, because it has all that once more in memory.
 */
const { beatLua, hangMs, keyPrefix, marks, redisTarget, workerId } = workerData as BeatSettings;
const nsPerMs = 1_000_000n;
const redis = openRedis(redisTarget, "patient", `millrace-beats-${workerId}`);
redis.on("error", () => undefined);
const clock = new StoreClock(redis, keyPrefix);
const beats = beatsOf(redis, workerId, beatLua);
const models = new Map<string, BeatVersions>();
let stopped = false;

const answer = (said: BeatAnswer) => parentPort?.postMessage(said);
const hasHung = () => process.hrtime.bigint() - Atomics.load(marks, 0) > BigInt(hangMs) * nsPerMs;
const beatFor = (model: string, versions: BeatVersions) =>
  beats.beat(modelKeys(keyPrefix, model), versions, clock.now());

async function beatAll(): Promise<void> {
  if (stopped || hasHung()) return;
  const now = clock.now();
  await Promise.all([
    redis.zadd(workersKey(keyPrefix), now + beatTtlMs, workerId),
    redis.zremrangebyscore(workersKey(keyPrefix), "-inf", now - 60_000),
    ...[...models].map(([model, versions]) => beatFor(model, versions)),
  ]);
  Atomics.store(marks, 1, process.hrtime.bigint());
}

async function carryOut(order: BeatOrder): Promise<void> {
  if (order.kind === "stop") {
    stopped = true;
  } else if (order.kind === "end") {
    stopped = true;
    await redis.zrem(workersKey(keyPrefix), workerId);
    for (const [model, { leaving, serving }] of models)
      await beats.end(modelKeys(keyPrefix, model), [...serving, ...leaving]);
    clock.close();
    closeRedis(redis);
  } else {
    const { model, versions } = order;
    const before = models.get(model);
    models.set(model, versions);
    const stays = new Set(versions.serving);
    const gone = [...(before?.serving ?? []), ...(before?.leaving ?? [])].filter((version) => !stays.has(version));
    await beats.end(modelKeys(keyPrefix, model), gone);
    if (!stopped) await beatFor(model, versions);
  }
}

/** Beats and orders take turns, so that no beat under way brings back what an order has ended. */
let turn: Promise<unknown> = (async () => {
  for (;;) {
    try {
      return await clock.start();
    } catch {
      await delay(200);
    }
  }
})();

parentPort?.on("message", (order: BeatOrder) => {
  turn = turn.then(async () => {
    const fault = await carryOut(order).then(
      () => null,
      (error: Error) => error.message,
    );
    answer({ id: order.id, fault });
  });
});

let waits = false;
setInterval(() => {
  // Beats do not pile up while Redis is away.
  if (waits) return;
  waits = true;
  turn = turn
    .then(beatAll)
    .catch((error: Error) => answer({ id: 0, fault: error.message }))
    .then(() => {
      waits = false;
    });
}, beatEveryMs);
turn = turn.then(beatAll).catch((error: Error) => answer({ id: 0, fault: error.message }));
