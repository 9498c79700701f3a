import { randomBytes } from "node:crypto";
import { ModelDirectory } from "@millrace/api/models/model-directory.js";
import { awaitPrediction } from "@millrace/api/predictions/await-end.js";
import { Notices } from "@millrace/api/predictions/notices.js";
import { StatisticsCounter } from "@millrace/shared/predictions/statistics.js";
import { confirmedByRedis } from "@millrace/shared/redis/confirm-writes.js";
import { openRedis } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { openLog } from "@millrace/shared/service/log.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { machineClock } from "../support/redis/machine-clock.js";
import { volume } from "../support/run/volume.js";
import { assertNotified } from "../support/stack/assert-notified.js";
import { untilRunning } from "../support/stack/processes.js";
import { noticesOnly, TestStack } from "../support/stack/stack.js";

/** The prediction of a control. */
const never = { model: "slow", input: { x: [[1]] } };
const lifeOf = ["queued", "running", "succeeded"];

describe("waiting and polling", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: ["slow"],
      manifests: { slow: { kind: "tensor", batching: { max_batch_rows: 4, join: "always" } } },
      slots: 2,
      timing: noticesOnly,
    });
  });
  afterAll(() => stack.close());

  test("a thousand polls and more while jobs run all answer 200, and no status ever goes backwards", async () => {
    const polls = volume(1000, 10_000);
    const accepted = await Promise.all(
      Array.from({ length: volume(50, 200) }, (_, i) => stack.submit("slow", { x: [[500 + i]] })),
    );
    const ids = accepted.map(({ id }) => id as string);
    const seen = new Map<string, string[]>();
    let sent = 0;
    let wrong = 0;
    // Each caller polls its own ids, so that the answers for one id are in order.
    const poll = async (own: readonly string[]) => {
      // A fast machine reaches `polls` early, so each caller also polls until it has seen all its ids succeed.
      for (let i = 0; sent < polls || own.some((id) => seen.get(id)?.at(-1) !== "succeeded"); i++) {
        sent += 1;
        const id = own[i % own.length] as string;
        const { body, status } = await stack.get(`/v1/predictions/${id}`);
        if (status !== 200 || body.id !== id) wrong += 1;
        const statuses = seen.get(id) ?? [];
        if (statuses.at(-1) !== body.status) seen.set(id, [...statuses, body.status]);
      }
    };
    await Promise.all(Array.from({ length: 25 }, (_, c) => poll(ids.filter((_, i) => i % 25 === c))));
    expect(sent).toBeGreaterThanOrEqual(polls);
    expect(wrong).toBe(0);
    const goesBack = [...seen.values()].filter((statuses) => statuses.join() !== inOrder(statuses).join());
    expect(goesBack).toEqual([]);
    expect(new Set([...seen.values()].flat())).toEqual(new Set(lifeOf));
    const finals = await Promise.all(ids.map((id) => stack.final(id)));
    expect(finals.map(({ output }) => output.y[0][0])).toEqual(ids.map((_, i) => 500 + i));
  });

  test("Prefer: wait answers 200 with the result as soon as there is one, and with Preference-Applied", async () => {
    const { body, headers, status } = await assertNotified(stack, never, () =>
      stack.predict("slow", { x: [[300]] }, {}, { headers: { prefer: "wait=20" } }),
    );
    expect(status).toBe(200);
    expect(body).toMatchObject({ status: "succeeded", output: { y: [[300]] } });
    expect(headers.get("preference-applied")).toBe("wait=20");
    expect(headers.get("location")).toBe(`/v1/predictions/${body.id}`);
  });

  test("Prefer: wait answers 202 with the current prediction if it is not done in time", async () => {
    const begun = performance.now();
    const answer = await stack.predict("slow", { x: [[3000]] }, {}, { headers: { prefer: "wait=1" } });
    expect(performance.now() - begun).toBeGreaterThan(950);
    // The answer came before the end of the run.
    expect([answer.status, answer.body.status, answer.body.output]).toEqual([202, "running", null]);

    const waited = await assertNotified(stack, never, () => stack.get(`/v1/predictions/${answer.body.id}?wait=20`));
    expect(waited.body.status).toBe("succeeded");
    const done = await stack.get(`/v1/predictions/${answer.body.id}?wait=20`);
    expect(done.body).toEqual(waited.body);
  });

  test("waits for one prediction at several APIs all get the same answer", async () => {
    const { url } = await stack.startApi();
    const { id } = await stack.submit("slow", { x: [[800]] });
    const waits = () =>
      Array.from({ length: 20 }, (_, i) => stack.get(`/v1/predictions/${id}?wait=20`, i % 2 === 0 ? {} : { url }));
    const answers = await assertNotified(stack, never, () => Promise.all(waits()));
    expect(answers.map(({ body }) => body)).toEqual(answers.map(() => answers[0]?.body));
    expect(answers[0]?.body).toMatchObject({ id, status: "succeeded" });
  });

  test("a wait still gets the answer if its notice was lost", async () => {
    const { id } = await stack.submit("slow", { x: [[1500]] });
    await untilRunning(stack, "slow", [id]);
    const waiting = stack.get(`/v1/predictions/${id}?wait=30`);
    const { interest, result } = modelKeys(stack.prefix, "slow");
    const apiId = await eventually(async () => {
      const found = await stack.redis.lrange(interest(id), 0, -1);
      expect(found).toEqual([expect.stringMatching(/^w/)]);
      return found[0]?.slice(1);
    });
    // The subscription is cut again and again until the prediction is final, so that the notice is lost.
    let cuts = 0;
    while ((await stack.redis.exists(result(id))) === 0) {
      const clients = String(await stack.redis.call("CLIENT", "LIST", "TYPE", "pubsub")).split("\n");
      const subscriber = clients.find((line) => line.includes(`name=millrace-notices-${apiId} `));
      if (subscriber === undefined) continue;
      await stack.redis.call("CLIENT", "KILL", "ID", /id=(\d+)/.exec(subscriber)?.[1] as string);
      cuts += 1;
    }
    expect(cuts).toBeGreaterThan(3);
    const { body, status } = await waiting;
    expect([status, body.status, body.output]).toEqual([200, "succeeded", { y: [[1500]] }]);
    // The next notice arrives again.
    const next = await assertNotified(stack, never, () => stack.predict("slow", { x: [[50]] }));
    expect(next.body.status).toBe("succeeded");
  });

  test("a wait of a disconnected client ends at once and keeps nothing", async () => {
    const target = parseRedisUrl(stack.redisUrl);
    const redis = openRedis(target, "patient", "test-api");
    const subscriber = openRedis(target, "patient", "test-notices");
    const directory = new ModelDirectory(redis, stack.prefix, machineClock, openLog("api", "error"), 2000);
    const notices = new Notices(subscriber, stack.prefix, randomBytes(6).toString("hex"), machineClock, 15_000);
    try {
      await directory.start();
      await notices.start();
      const log = openLog("api", "error");
      const statistics = new StatisticsCounter(redis, stack.prefix, machineClock, log);
      const confirmed = confirmedByRedis(redis);
      const settings = { keyPrefix: stack.prefix, resultTtlSeconds: 60, onStored: () => undefined };
      const deps = { redis, confirmed, directory, notices, statistics, clock: machineClock, log, ...settings };
      const { id } = await stack.submit("slow", { x: [[1000]] });
      const gone = new AbortController();
      const waits = [1, 2, 3].map(() => awaitPrediction(deps, "alice", id, 30_000, gone.signal));
      const stays = awaitPrediction(deps, "alice", id, 30_000, new AbortController().signal);
      await eventually(() => expect(notices.open).toBe(1));
      gone.abort();
      expect((await Promise.all(waits)).map(({ final }) => final)).toEqual([false, false, false]);
      expect(notices.open).toBe(1);
      expect((await stays).final).toBe(true);
      await statistics.close();
      expect(notices.open).toBe(0);
    } finally {
      notices.close();
      directory.close();
      redis.disconnect();
      subscriber.disconnect();
    }
  });
});

const inOrder = (statuses: readonly string[]): string[] => lifeOf.filter((status) => statuses.includes(status));
