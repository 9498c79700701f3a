import { setTimeout as delay } from "node:timers/promises";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { volume } from "../support/run/volume.js";
import { assertNotified } from "../support/stack/assert-notified.js";
import { readiness, untilIdle } from "../support/stack/processes.js";
import { type Answer, noticesOnly, shortLocks, TestStack } from "../support/stack/stack.js";

const model = "echo-int64";
/** Number of predictions accepted before a fault, and after it. */
const amid = volume(100, 300);
const path = `/v1/models/${model}/predictions`;

describe("while Redis is unreachable", () => {
  let redis: OwnRedis;
  let stack: TestStack;
  let known: string;

  beforeAll(async () => {
    redis = await OwnRedis.start();
    const timing = { ...shortLocks, ...noticesOnly };
    stack = await TestStack.start({ models: [model, "slow"], redisUrl: redis.url, timing });
    known = (await stack.submit(model, { x: [[0, 0, 0]] })).id;
  });
  afterAll(async () => {
    await stack?.close();
    await redis?.close();
  });

  /** Waits until the API is connected to Redis again. */
  const untilReady = () => eventually(async () => expect((await stack.get("/v1/models")).status).toBe(200));

  /**
   * Sends one request of each kind at once and asserts the promised refusals: each within 2 s of a control request that
   * needs no Redis, whose time shows how busy the machine is.
   */
  async function assertQuickRefusals(): Promise<void> {
    const timed = async (answer: Promise<Answer>) => {
      const begun = performance.now();
      return { ...(await answer), tookMs: performance.now() - begun };
    };
    const x = [[7, 7, 7]];
    const health = timed(stack.get("/health", { as: null }));
    const ready = timed(stack.get("/ready", { as: null }));
    const refused = await Promise.all([
      timed(stack.post(path, { input: { x } })),
      timed(stack.post(path, { input: { x } }, { headers: { prefer: "wait=20" } })),
      timed(stack.get(`/v1/predictions/${known}`)),
      timed(stack.get(`/v1/predictions/${known}?wait=20`)),
      timed(stack.get(`/v1/models/${model}`)),
      timed(stack.get("/v1/models")),
      timed(stack.get("/v1/models/never-heard-of")),
    ]);
    const control = await health;
    expect(control.status).toBe(200);
    const withinMs = 2000 + 4 * control.tookMs;
    for (const { body, headers, status, tookMs } of refused) {
      expect({ status, code: body.code }).toEqual({ status: 503, code: "redis_unavailable" });
      expect(headers.get("content-type")).toMatch(/^application\/problem\+json/);
      expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
      expect(tookMs).toBeLessThan(withinMs);
      expect(JSON.stringify(body)).not.toMatch(/127\.0\.0\.1|redis:\/\/|ECONN|at \w+ \(/);
    }
    const readiness = await ready;
    expect(readiness.status).toBe(503);
    expect(readiness.headers.get("retry-after")).not.toBeNull();
    expect(readiness.tookMs).toBeLessThan(withinMs);
  }

  /** Submits distinct inputs without a pause until `stop`, by `callers` callers, half of which wait for the end. */
  function load(callers: number) {
    const accepted = new Map<string, number[]>();
    const refusals: Answer[] = [];
    let stopped = false;
    let next = 0;
    const caller = async (c: number) => {
      while (!stopped) {
        const row = [++next, c, 1];
        const headers = c % 2 === 0 ? { prefer: "wait=10" } : {};
        const answer = await stack.post(path, { input: { x: [row] } }, { headers });
        if (answer.status === 200 || answer.status === 202) accepted.set(answer.body.id, row);
        else {
          refusals.push(answer);
          // Sooner than Retry-After asks for.
          await delay(100);
        }
      }
    };
    const callersDone = Promise.all(Array.from({ length: callers }, (_, c) => caller(c)));
    const stop = () => {
      stopped = true;
      return callersDone;
    };
    return { accepted, refusals, stop };
  }

  test("each prediction accepted around a SIGKILL and restart under load finishes with its own result", async () => {
    const [worker] = stack.workers as [TestStack["workers"][number]];
    const { accepted, refusals, stop } = load(12);
    await eventually(() => expect(accepted.size).toBeGreaterThan(amid));
    await redis.kill();
    const before = accepted.size;
    await assertQuickRefusals();
    await redis.resume();
    await untilReady();
    await eventually(() => expect(accepted.size).toBeGreaterThan(before + amid));
    await stop();
    expect(refusals.length).toBeGreaterThan(0);
    expect(new Set(refusals.map(({ status }) => status))).toEqual(new Set([503]));

    await assertAllSucceeded(accepted);
    expect(worker.child.exitCode).toBeNull();
    await eventually(async () => {
      expect((await readiness(worker)).ready).toBe(true);
      expect(await stack.redis.llen(`${modelKeys(stack.prefix, model).queue}active`)).toBe(0);
    });
  }, 90_000);

  test("a wait for a run that ended without Redis is answered, and the run's result is kept", async () => {
    const { id } = await stack.submit("slow", { x: [[1500]] });
    const waiting = stack.get(`/v1/predictions/${id}?wait=30`);
    await eventually(async () => expect((await stack.get(`/v1/predictions/${id}`)).body.status).toBe("running"));
    await redis.kill();
    // Redis stays down until the run has ended, so that its result cannot be written yet.
    const [worker] = stack.workers as [TestStack["workers"][number]];
    await untilIdle(worker);
    await redis.resume();
    await untilReady();
    expect(await stack.final(id)).toMatchObject({ status: "succeeded", output: { y: [[1500]] } });
    const answer = await waiting;
    if (answer.status !== 503) expect(answer.body).toMatchObject({ id, status: "succeeded" });
  });

  test("a Redis that accepts connections but does not answer means equally quick refusals, then recovery", async () => {
    await untilReady();
    process.kill(redis.pid, "SIGSTOP");
    try {
      const early = stack.get(`/v1/predictions/${known}`);
      // Later requests must not wait for the timeout of earlier ones.
      await delay(300);
      await assertQuickRefusals();
      expect((await early).status).toBe(503);
    } finally {
      process.kill(redis.pid, "SIGCONT");
    }
    await eventually(async () => {
      const { body, status } = await stack.predict(model, { x: [[1, 2, 3]] });
      expect([status, body.output]).toEqual([200, { y: [[1, 2, 3]] }]);
    });
    await eventually(async () => expect((await stack.get("/ready", { as: null })).status).toBe(200));
  });

  /** Asserts that every prediction of a load has its own result. */
  async function assertAllSucceeded(accepted: ReadonlyMap<string, number[]>): Promise<void> {
    const entries = [...accepted];
    for (let i = 0; i < entries.length; i += 64) {
      const part = entries.slice(i, i + 64);
      const finals = await Promise.all(part.map(([id]) => stack.final(id)));
      expect(finals.map(({ output, status }) => [status, output])).toEqual(
        part.map(([, row]) => ["succeeded", { y: [row] }]),
      );
    }
  }

  test("connections and subscriptions killed under load cost no accepted prediction", async () => {
    await untilReady();
    const admin = stack.redis as Redis;
    const { accepted, refusals, stop } = load(12);
    for (let round = 1; round <= 5; round++) {
      const before = accepted.size;
      await eventually(() => expect(accepted.size).toBeGreaterThan(before + 60));
      await admin.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
      await admin.call("CLIENT", "KILL", "TYPE", "pubsub");
    }
    await untilReady();
    const before = accepted.size;
    await eventually(() => expect(accepted.size).toBeGreaterThan(before + 100));
    await stop();
    expect(refusals.filter(({ status }) => status !== 503)).toEqual([]);
    await assertAllSucceeded(accepted);
    // Notices arrive again.
    const heard = await assertNotified(stack, { model, input: { x: [[1, 1, 1]] } }, () =>
      stack.predict("slow", { x: [[500]] }),
    );
    expect(heard.body.status).toBe("succeeded");
  }, 90_000);

  test("readiness reports Redis' current durability after a reconnect", async () => {
    await untilReady();
    const admin = stack.redis as Redis;
    const readinessBody = async () => (await stack.get("/ready", { as: null })).body;
    expect((await readinessBody()).durability).toBe("fsync");
    for (const [policy, durability] of [
      ["everysec", "everysec"],
      ["always", "fsync"],
    ] as const) {
      await admin.config("SET", "appendfsync", policy);
      await admin.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
      await eventually(async () => expect(await readinessBody()).toMatchObject({ redis: "writable", durability }));
    }
  });

  test("a pause longer than any lock means refusals, then recovery, and costs no accepted prediction", async () => {
    await untilReady();
    const { accepted, refusals, stop } = load(12);
    await eventually(() => expect(accepted.size).toBeGreaterThan(100));
    const pauseMs = 2 * shortLocks.worker.lockMs;
    const pausedAt = performance.now();
    await (stack.redis as Redis).call("CLIENT", "PAUSE", String(pauseMs), "ALL");
    await delay(300);
    await assertQuickRefusals();
    const before = accepted.size;
    await eventually(() => expect(accepted.size).toBeGreaterThan(before + 100), 40_000);
    expect(performance.now() - pausedAt).toBeGreaterThan(0.9 * pauseMs);
    await stop();
    expect(refusals.filter(({ status }) => status !== 503)).toEqual([]);
    await assertAllSucceeded(accepted);
  }, 90_000);

  test("with its memory full Redis accepts no work, keeps no partial work, and workers still drain", async () => {
    await untilReady();
    const admin = stack.redis as Redis;
    // Earlier work must have ended, so that none of its keys change during the comparison.
    const { queue } = modelKeys(stack.prefix, model);
    await eventually(async () => expect(await admin.exists(`${queue}active`)).toBe(0));
    const webhook = { url: "https://example.com/hook" };
    const waiting = await Promise.all(Array.from({ length: 120 }, (_, i) => stack.submit("slow", { x: [[i % 50]] })));
    await admin.config("SET", "maxmemory", "1mb");
    try {
      // A worker's note of its check for stalled jobs comes and goes every second.
      const keysOfModel = async () => {
        const found = await admin.keys(`${modelKeys(stack.prefix, model).base}*`);
        return found.filter((key) => !key.endsWith(":stalled-check")).sort();
      };
      const before = await keysOfModel();
      const rows = Array.from({ length: 3000 }, () => ({ x: [[1, 1, 1]] }));
      const refused = await Promise.all([
        stack.post(path, { input: { x: [[4, 4, 4]] } }, { headers: { "idempotency-key": "full" } }),
        stack.post(path, { input: { x: [[5, 5, 5]] }, priority: 3 }),
        stack.post(path, { input: { x: [[6, 6, 6]] }, delay_ms: 5000 }, { headers: { prefer: "wait=5" } }),
        stack.post(`/v1/models/${model}/batches`, { inputs: rows }),
      ]);
      for (const { body, headers, status } of refused) {
        expect([status, body.code], JSON.stringify(body)).toEqual([503, "redis_full"]);
        expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
      }
      expect((await stack.post(path, { input: { x: [[7, 7, 7]] }, webhook })).status).toBeGreaterThanOrEqual(400);
      const ready = await stack.get("/ready", { as: null });
      expect([ready.status, ready.body.redis]).toEqual([503, "full"]);
      expect(await keysOfModel()).toEqual(before);
      const finals = await Promise.all(waiting.map(({ id }) => stack.final(id)));
      expect(finals.filter(({ attempts, status }) => status !== "succeeded" || attempts !== 1)).toEqual([]);
      await eventually(async () => {
        expect((await stack.get("/v1/models/slow")).body.workers_alive).toBeGreaterThan(0);
      });
      const [worker] = stack.workers as [TestStack["workers"][number]];
      expect((await readiness(worker)).ready).toBe(true);
    } finally {
      await admin.config("SET", "maxmemory", "0");
    }
    // The API checks Redis' memory once a second.
    await eventually(async () => {
      const answer = await stack.predict(model, { x: [[4, 4, 4]] }, {}, { headers: { "idempotency-key": "full-2" } });
      expect([answer.status, answer.body.status]).toEqual([200, "succeeded"]);
    });
  }, 90_000);
});
