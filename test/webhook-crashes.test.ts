import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "./support/eventually.js";
import { OwnRedis } from "./support/own-redis.js";
import { Receiver, secretOf, verified } from "./support/receiver.js";
import { type Answer, TestStack } from "./support/stack.js";

const secret = secretOf(7);
/** Every tenth row takes a while, so that kills find something on its way. */
const takesTime = (row: number): boolean => row % 10 === 0;
const inputOf = (row: number): number[][] => (takesTime(row) ? [[20]] : [[row, 0, 1]]);
const events = ["prediction.started", "prediction.completed"];
const perRound = 320;

describe("webhooks and sudden death", () => {
  let redis: OwnRedis;
  let stack: TestStack;
  let receiver: Receiver;

  beforeAll(async () => {
    redis = await OwnRedis.start();
    receiver = await Receiver.start();
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
  });

  const api = (): string => (stack.apis.findLast(({ url }) => url !== "") as { url: string }).url;

  /** Submits until it is accepted, under one key, as a client is told to. Every fourth wants to hear of the start too. */
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
      // What a client is asked to do, but sooner.
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
    },
  };
  /** Where the one of that role now stands among the stack's workers. */
  const workerAt = { inference: 0, webhooks: 1 };

  async function restartWorker(role: "inference" | "webhooks"): Promise<void> {
    const victim = stack.workers[workerAt[role]] as TestStack["workers"][number];
    victim.child.kill("SIGKILL");
    expect(await victim.exited).toBe("SIGKILL");
    const next = stack.startWorker({ WORKER_ROLES: role });
    workerAt[role] = stack.workers.length - 1;
    await next;
  }

  test("every prediction accepted through SIGKILLs of API, workers and Redis becomes final and is told, hardly any twice", async () => {
    const accepted = new Map<string, number>();
    let next = 0;
    /** Accepts a round's predictions and kills amid them; both have happened when it resolves. */
    const round = async (victim: keyof typeof victims) => {
      const end = next + perRound;
      const amid = accepted.size + perRound / 3;
      const caller = async () => {
        while (next < end) {
          const row = ++next;
          accepted.set(await accept(row), row);
        }
      };
      const callers = Promise.all(Array.from({ length: 8 }, caller));
      await eventually(() => expect(accepted.size).toBeGreaterThanOrEqual(amid));
      await victims[victim]();
      await callers;
    };
    for (let i = 0; i < 5; i++) for (const victim of ["api", "inference", "webhooks"] as const) await round(victim);
    await round("redis");
    expect(accepted.size, "each under an id of its own").toBe(16 * perRound);

    const ids = [...accepted.keys()];
    for (let i = 0; i < ids.length; i += 64) {
      const part = ids.slice(i, i + 64);
      const finals = await Promise.all(part.map((id) => stack.final(id, { url: api() })));
      expect(finals.map(({ output, status }) => [status, output])).toEqual(
        part.map((id) => ["succeeded", { y: inputOf(accepted.get(id) as number) }]),
      );
    }
    const wanted = [...accepted].flatMap(([id, row]) =>
      (row % 4 === 0 ? events : events.slice(1)).map((e) => `${e} ${id}`),
    );
    const told = await eventually(() => {
      const seen = new Map<string, string[]>();
      for (const request of receiver.requests) {
        const { data, type } = verified(secret, request);
        const what = `${type} ${data.id}`;
        seen.set(what, [...(seen.get(what) ?? []), request.headers["webhook-id"] as string]);
      }
      expect(wanted.filter((what) => !seen.has(what))).toEqual([]);
      return seen;
    }, 40_000);
    expect(told.size, "nothing else is told").toBe(wanted.length);
    const webhookIds = [...told.values()].map((tries) => [...new Set(tries)]);
    expect(webhookIds.filter((tries) => tries.length > 1)).toEqual([]);
    expect(new Set(webhookIds.flat()).size).toBe(wanted.length);
    const repeats = receiver.requests.length - wanted.length;
    expect(repeats / wanted.length, `${repeats} repeats`).toBeLessThanOrEqual(0.01);
  }, 240_000);
});
