import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { tagOfId } from "@millrace/shared/redis/ids.js";
import { type ModelKeys, modelKeys } from "@millrace/shared/redis/keys.js";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver, secretOf, verified } from "../support/http/receiver.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { writeChaosResult } from "../support/run/chaos-result.js";
import { volume } from "../support/run/volume.js";
import { type Answer, TestStack } from "../support/stack/stack.js";

const secret = secretOf(7);
/** Every tenth row takes 20 ms, so that kills hit running predictions. */
const takesTime = (row: number): boolean => row % 10 === 0;
const inputOf = (row: number): number[][] => (takesTime(row) ? [[20]] : [[row, 0, 1]]);
const events = ["prediction.started", "prediction.completed"];
const perRound = volume(120, 320);
const rowsPerBatch = volume(400, 2500);
const rounds = volume(1, 5);
/** The long form, `npm run chaos`: for that time, a kill of a random process every 3 s under constant load. */
const chaosMs = Number(process.env.CHAOS_SECONDS ?? 0) * 1000;
const killEveryMs = 3000;
const chaosCallers = 12;

describe("webhooks and killed processes", () => {
  let redis: OwnRedis;
  let stack: TestStack;
  let receiver: Receiver;
  /** Webhook ids by event type and prediction or batch. */
  const webhookIdsByEvent = new Map<string, string[]>();
  /** Ids of webhooks with a try that had no record when a kill came or when they were sent again. */
  const unrecorded = new Set<string>();
  const repeats: Promise<void>[] = [];

  beforeAll(async () => {
    redis = await OwnRedis.start();
    receiver = await Receiver.start((received) => {
      // Verified on receipt, because a signature is valid for five minutes.
      const { data, type } = verified(secret, received);
      const event = `${type} ${data.id}`;
      const tries = webhookIdsByEvent.get(event);
      const id = received.headers["webhook-id"] as string;
      if (tries === undefined) webhookIdsByEvent.set(event, [id]);
      else {
        tries.push(id);
        // Sent before this try is answered, hence before its own record.
        repeats.push(collectUnrecorded([id]));
      }
      return { status: 204 };
    });
    stack = await TestStack.start({
      models: ["echo-int64", "slow"],
      manifests: { slow: { kind: "tensor", batching: { max_batch_rows: 1 } } },
      workers: 0,
      redisUrl: redis.url,
      env: { WEBHOOK_SECRET: secret, WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
      workerEnv: { WEBHOOK_RETRY_SCHEDULE: "1,1,1,1,1" },
    });
    await stack.startWorker({ WORKER_ROLES: "inference" });
    await stack.startWorker({ WORKER_ROLES: "webhooks" });
  });
  afterAll(async () => {
    await stack?.close();
    await receiver?.close();
    await redis?.close();
  }, 60_000 + chaosMs);

  const api = (): string => (stack.apis.findLast(({ url }) => url !== "") as { url: string }).url;

  /**
   * Submits under one Idempotency-Key until it is accepted, as clients should. Every fourth has a webhook for the start
   * too.
   */
  async function accept(row: number): Promise<string> {
    const headers = { "idempotency-key": randomUUID() };
    const path = `/v1/models/${takesTime(row) ? "slow" : "echo-int64"}/predictions`;
    const webhook = { url: receiver.url("/"), ...(row % 4 === 0 && { events }) };
    for (;;) {
      const answer: Answer | null = await stack
        .post(path, { input: { x: inputOf(row) }, cache: false, webhook }, { headers, url: api() })
        .catch(() => null);
      if (answer?.status === 202) return answer.body.id;
      if (answer !== null) expect(answer.status, JSON.stringify(answer.body)).toBe(503);
      // Sooner than Retry-After asks for.
      await delay(50);
    }
  }

  const victims = {
    api: async () => {
      const victim = stack.apis.at(-1) as TestStack["apis"][number];
      victim.child.kill("SIGKILL");
      expect(await victim.exited).toBe("SIGKILL");
      await stack.startApi();
    },
    inference: () => restartWorker("inference"),
    webhooks: () => restartWorker("webhooks"),
    redis: async () => {
      await redis.kill();
      await redis.resume();
      await collectUnrecorded();
    },
  };
  /** Index of the current worker of each role in the stack's workers. */
  const workerAt = { inference: 0, webhooks: 1 };

  async function restartWorker(role: "inference" | "webhooks"): Promise<void> {
    const victim = stack.workers[workerAt[role]] as TestStack["workers"][number];
    victim.child.kill("SIGKILL");
    expect(await victim.exited).toBe("SIGKILL");
    if (role === "webhooks") {
      await eventually(() => expect(receiver.connections).toBe(0));
      await collectUnrecorded();
    }
    const next = stack.startWorker({ WORKER_ROLES: role });
    workerAt[role] = stack.workers.length - 1;
    await next;
  }

  /** Collects those of the webhooks whose first try has no record yet. */
  async function collectUnrecorded(ids = [...webhookIdsByEvent.values()].flat()): Promise<void> {
    if (chaosMs > 0) return;
    const recorded = await Promise.all(ids.map((id) => stack.redis.exists((keysOf(id) as ModelKeys).attempts(id))));
    for (const [i, id] of ids.entries()) if (recorded[i] === 0) unrecorded.add(id);
  }

  /** Keys of the model of an id. */
  const keysOf = (id: string): ModelKeys | undefined =>
    ["echo-int64", "slow"].map((model) => modelKeys(stack.prefix, model)).find(({ tag }) => tagOfId(id) === tag);

  /** The final prediction; on failure, throws with its log lines and its keys in Redis. */
  // biome-ignore lint/suspicious/noExplicitAny: see Answer
  async function finalOf(id: string): Promise<any> {
    try {
      return await stack.final(id, { url: api() });
    } catch (fault) {
      const logLines = stack.log.map((line) => JSON.stringify(line)).filter((line) => line.includes(id));
      const again = await stack.get(`/v1/predictions/${id}`, { url: api() });
      const kept = JSON.stringify(await keptOf(id));
      const words = `${id}, read again: ${again.status}; kept: ${kept}; log: ${logLines.join("\n").slice(0, 5000)}`;
      throw new Error(words, { cause: fault });
    }
  }

  /** Keys of a prediction in Redis. */
  async function keptOf(id: string) {
    const redis = stack.redis as Redis;
    const keys = keysOf(id);
    if (keys === undefined) return "an id of no model";
    const { queue } = keys;
    const places: string[] = [];
    for (const list of ["wait", "active"]) if ((await redis.lpos(`${queue}${list}`, id)) !== null) places.push(list);
    for (const set of ["prioritized", "delayed", "completed", "failed"]) {
      if ((await redis.zscore(`${queue}${set}`, id)) !== null) places.push(set);
    }
    const [job, result, lock] = [
      await redis.hgetall(`${queue}${id}`),
      await redis.get(keys.result(id)),
      await redis.get(`${queue}${id}:lock`),
    ];
    return { places, job, result, lock, running: await redis.hget(keys.running, id) };
  }

  /** Uploads a batch under one Idempotency-Key until it is accepted. */
  async function acceptBatch(batch: number): Promise<string> {
    const headers = { "idempotency-key": randomUUID() };
    const inputs = Array.from({ length: rowsPerBatch }, (_, row) => ({ x: [[batch, row, 2]] }));
    for (;;) {
      const webhook = { url: receiver.url("/") };
      const answer: Answer | null = await stack
        .post("/v1/models/echo-int64/batches", { inputs, webhook }, { headers, url: api() })
        .catch(() => null);
      if (answer?.status === 202) return answer.body.id;
      if (answer !== null) expect(answer.status, JSON.stringify(answer.body)).toBe(503);
      await delay(50);
    }
  }

  /** Asserts that every row of a batch has the expected output at its index. */
  async function assertBatchResults(id: string, batch: number): Promise<void> {
    const final = await eventually(async () => {
      const { body } = await stack.get(`/v1/batches/${id}?wait=10`, { url: api() });
      expect(body.finished_at, JSON.stringify(body)).not.toBeNull();
      return body;
    }, 60_000);
    expect(final).toMatchObject({ status: "succeeded", counts: { succeeded: rowsPerBatch, failed: 0, pending: 0 } });
    const accept = { accept: "application/x-ndjson" };
    const { body } = await stack.get(`/v1/batches/${id}/results`, { url: api(), headers: accept });
    const lines = (body as string)
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines.map(({ index, output }) => [index, output])).toEqual(
      Array.from({ length: rowsPerBatch }, (_, row) => [row, { y: [[batch, row, 2]] }]),
    );
  }

  test(
    "everything accepted amid SIGKILLs ends and is delivered, repeated only if a kill came before its record",
    async () => {
      const accepted = new Map<string, number>();
      const batches = new Map<string, number>();
      const kills = { api: 0, inference: 0, webhooks: 0, redis: 0 };
      let next = 0;
      let nextBatch = 0;
      const acceptNext = async () => {
        const row = ++next;
        accepted.set(await accept(row), row);
      };
      const acceptNextBatch = async () => {
        const batch = ++nextBatch;
        batches.set(await acceptBatch(batch), batch);
      };
      /** Submits a round's predictions and kills `victim` amid them; resolves when both are done. */
      const round = async (victim: keyof typeof victims) => {
        const end = next + perRound;
        const amid = accepted.size + perRound / 3;
        const caller = async () => {
          while (next < end) await acceptNext();
        };
        const callers = Promise.all([acceptNextBatch(), ...Array.from({ length: 8 }, caller)]);
        await eventually(() => expect(accepted.size).toBeGreaterThanOrEqual(amid));
        await victims[victim]();
        kills[victim] += 1;
        await callers;
      };
      /** Kills a random process every few seconds for the time of the long form, under load. */
      const killAtRandom = async () => {
        const until = performance.now() + chaosMs;
        const repeat = async (act: () => Promise<void>, pauseMs: number) => {
          while (performance.now() < until) {
            await act();
            await delay(pauseMs);
          }
        };
        const callers = Promise.all([
          repeat(acceptNextBatch, 5000),
          ...Array.from({ length: chaosCallers }, () => repeat(acceptNext, 0)),
        ]);
        for (let at = killEveryMs; at < chaosMs; at += killEveryMs) {
          await delay(Math.max(0, until - chaosMs + at - performance.now()));
          const victim = Object.keys(victims)[Math.floor(Math.random() * 4)] as keyof typeof victims;
          await victims[victim]();
          kills[victim] += 1;
        }
        await callers;
      };
      if (chaosMs > 0) await killAtRandom();
      else {
        for (let i = 0; i < rounds; i++)
          for (const victim of ["api", "inference", "webhooks"] as const) await round(victim);
        await round("redis");
      }
      expect(accepted.size, "unique ids").toBe(next);
      expect(batches.size, "unique ids").toBe(nextBatch);

      const ids = [...accepted.keys()];
      for (let i = 0; i < ids.length; i += 64) {
        const part = ids.slice(i, i + 64);
        const finals = await Promise.all(part.map(finalOf));
        expect(finals.map(({ output, status }) => [status, output])).toEqual(
          part.map((id) => ["succeeded", { y: inputOf(accepted.get(id) as number) }]),
        );
      }
      for (const [id, batch] of batches) await assertBatchResults(id, batch);
      const wanted = [...accepted].flatMap(([id, row]) =>
        (row % 4 === 0 ? events : events.slice(1)).map((e) => `${e} ${id}`),
      );
      for (const id of batches.keys()) wanted.push(`batch.completed ${id}`);
      await eventually(() => {
        expect(wanted.filter((event) => !webhookIdsByEvent.has(event))).toEqual([]);
      }, 60_000 + chaosMs);
      expect(webhookIdsByEvent.size, "no other webhook").toBe(wanted.length);
      const webhookIds = [...webhookIdsByEvent.values()].map((tries) => [...new Set(tries)]);
      expect(webhookIds.filter((tries) => tries.length > 1)).toEqual([]);
      expect(new Set(webhookIds.flat()).size).toBe(wanted.length);
      if (chaosMs === 0) {
        await Promise.all(repeats);
        const repeated = [...webhookIdsByEvent.values()]
          .filter((tries) => tries.length > 1)
          .map(([id]) => id as string);
        expect(repeated.filter((id) => !unrecorded.has(id))).toEqual([]);
      } else {
        expect(repeats.length).toBeLessThanOrEqual(0.01 * wanted.length);
        writeChaosResult("chaos", {
          seconds: chaosMs / 1000,
          kills,
          accepted: next,
          batches: nextBatch,
          lost: 0,
          wrong: 0,
          webhooks: wanted.length,
          repeats: repeats.length,
        });
      }
    },
    240_000 + 3 * chaosMs,
  );
});
