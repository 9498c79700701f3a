import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { spawnService } from "@millrace/cli/service-process.js";
import { checkRedis } from "@millrace/shared/redis/check-redis.js";
import { openRedis } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { type OwnSentinels, startOwnSentinels } from "../support/redis/own-sentinels.js";
import { writeChaosResult } from "../support/run/chaos-result.js";
import { timedBesideHealth } from "../support/stack/processes.js";
import { type Answer, TestStack } from "../support/stack/stack.js";

const model = "echo-int64";
const path = `/v1/models/${model}/predictions`;
/** More than one in the long form, `npm run chaos`. */
const failovers = Number(process.env.CHAOS_FAILOVERS ?? 1);
/** Predictions accepted before each kill; a third as many after it. */
const amid = failovers > 1 ? 300 : 90;
/** Goal of the longest time without an accepted prediction, in ms. The long form reports it beside the figure. */
const goalAwayMs = 10_000;

describe("sentinels, a master and two replicas, with DURABILITY=replica", () => {
  let sentinels: OwnSentinels;
  let stack: TestStack;

  beforeAll(async () => {
    sentinels = await startOwnSentinels();
    stack = await TestStack.start({ models: [model], redisUrl: sentinels.url, env: { DURABILITY: "replica" } });
  }, 120_000);
  afterAll(async () => {
    await stack?.close().finally(() => sentinels.close());
  });

  test("describes the durability of an acknowledgement in words", async () => {
    const { body, status } = await stack.get("/ready", { as: null });
    expect([status, body.redis, body.durability]).toEqual([200, "writable", "replica"]);
    expect(body.promise).toMatch(/replica before it is acknowledged/);
  });

  test("warns of lost work in a failover if there are replicas that no write waits for", async () => {
    const redis = openRedis(parseRedisUrl(sentinels.url), "patient", "test");
    try {
      const { durability, warnings } = await checkRedis(redis, 10_000);
      expect([durability, warnings]).toEqual(["fsync", [expect.stringContaining("DURABILITY=replica")]]);
    } finally {
      redis.disconnect();
    }
  });

  test("accepts an input that is too large for its job", async () => {
    const x = Array.from({ length: 3000 }, (_, i) => [i, 1, 2]);
    const answer = await stack.predict(model, { x });
    expect([answer.status, answer.body.status]).toEqual([200, "succeeded"]);
    expect(answer.body.output.y).toEqual(x);
  });

  test("after a kill of the master nothing acknowledged is lost or wrong, and service returns", async () => {
    const accepted = new Map<string, number[]>();
    const statuses = new Map<number, number>();
    let stopped = false;
    let lastAcceptedAt = performance.now();
    let longestMs = 0;
    const caller = async (c: number) => {
      for (let n = 0; !stopped; n++) {
        const row = [failovers, c, n];
        const headers = { "idempotency-key": randomUUID(), ...(c % 3 === 0 && { prefer: "wait=10" }) };
        for (let done = false; !done && !stopped; ) {
          const answer: Answer = await stack.post(path, { input: { x: [row] }, cache: false }, { headers });
          statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
          done = answer.status < 300;
          if (done) {
            const now = performance.now();
            longestMs = Math.max(longestMs, now - lastAcceptedAt);
            lastAcceptedAt = now;
            accepted.set(answer.body.id, row);
          } else await delay(50);
        }
      }
    };
    const callers = Promise.all(Array.from({ length: 12 }, (_, c) => caller(c)));
    for (let i = 0; i < failovers; i++) {
      const before = accepted.size;
      await eventually(() => expect(accepted.size).toBeGreaterThan(before + amid), 60_000);
      const killed = await sentinels.killMaster();
      const atKill = accepted.size;
      await eventually(() => expect(accepted.size).toBeGreaterThan(atKill + amid / 3), 60_000);
      await killed.resume();
      await sentinels.untilReplicated(2);
    }
    stopped = true;
    await callers;
    // The new master is no other store.
    expect(stack.logged("store swapped")).toEqual([]);
    expect((await stack.get("/ready", { as: null })).body.store_swapped).toBeNull();
    expect([...statuses.keys()].filter((status) => ![200, 202, 503].includes(status))).toEqual([]);
    const entries = [...accepted];
    for (let i = 0; i < entries.length; i += 64) {
      const part = entries.slice(i, i + 64);
      const finals = await Promise.all(part.map(([id]) => stack.final(id)));
      expect(finals.map(({ output, status }) => [status, output])).toEqual(
        part.map(([, row]) => ["succeeded", { y: [row] }]),
      );
    }
    if (failovers > 1) {
      writeChaosResult("chaos-sentinels", {
        failovers,
        accepted: accepted.size,
        lost: 0,
        wrong: 0,
        longestAwayMs: Math.round(longestMs),
        goalAwayMs,
        met: longestMs <= goalAwayMs,
      });
    }
  }, 600_000);

  test("while no replica confirms, nothing is acknowledged, readiness reports it, and reads still work", async () => {
    await sentinels.untilReplicated(2);
    const { id } = await stack.submit(model, { x: [[1, 2, 3]] });
    await stack.final(id);
    const replicas = await sentinels.replicas();
    for (const { pid } of replicas) process.kill(pid, "SIGSTOP");
    try {
      const headers = { "idempotency-key": "while-alone" };
      const { answer, longestHealthMs, tookMs } = await timedBesideHealth(
        stack,
        stack.post(path, { input: { x: [[9, 9, 9]] } }, { headers }),
      );
      expect([answer.status, answer.body.code]).toEqual([503, "redis_unavailable"]);
      expect(answer.headers.get("retry-after")).not.toBeNull();
      expect(tookMs).toBeLessThan(2500 + 4 * longestHealthMs);
      expect((await stack.get(`/v1/predictions/${id}`)).status).toBe(200);
      const ready = await stack.get("/ready", { as: null });
      expect([ready.status, ready.body.redis]).toEqual([503, "not_replicated"]);
      const batch = await stack.post(`/v1/models/${model}/batches`, { inputs: [{ x: [[1, 1, 1]] }] });
      expect(batch.status).toBe(503);
      for (const { pid } of replicas) process.kill(pid, "SIGCONT");
      await eventually(async () => {
        const again = await stack.post(path, { input: { x: [[9, 9, 9]] } }, { headers });
        expect([200, 202]).toContain(again.status);
        expect((await stack.final(again.body.id)).output).toEqual({ y: [[9, 9, 9]] });
      });
    } finally {
      for (const { pid } of replicas) process.kill(pid, "SIGCONT");
    }
  });

  test("a Redis without a replica is refused at startup", async () => {
    const env = stack.environment({ REDIS_URL: inject("redisUrl"), DURABILITY: "replica" });
    for (const kind of ["api", "worker"] as const) {
      const service = spawnService(kind, env);
      expect(await service.exited).toBe(1);
      await expect(service.ready).rejects.toThrow(/DURABILITY=replica is promised/);
    }
  });
});
