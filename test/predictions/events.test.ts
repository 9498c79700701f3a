import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { eventsIn, openRequest } from "../support/http/open-request.js";
import { scrape } from "../support/http/scrape.js";
import { startOwnRedis } from "../support/redis/private-redis.js";
import { volume } from "../support/run/volume.js";
import { busyMachineTiming, noticesOnly, TestStack } from "../support/stack/stack.js";

const ms = (x: number) => ({ x: [[x]] });

describe("waits and event streams", () => {
  let redis: Awaited<ReturnType<typeof startOwnRedis>>;
  let stack: TestStack;
  const events = (id: string, lastEventId?: string, url = stack.url) =>
    openRequest(`${url}/v1/predictions/${id}/events`, {
      headers: lastEventId === undefined ? {} : { "last-event-id": lastEventId },
    });
  const wait = (id: string) => openRequest(`${stack.url}/v1/predictions/${id}?wait=60`);
  /** A prediction that stays queued for about `heldMs` behind another one, and then runs for `runsMs`. */
  const queuedFor = async (heldMs: number, runsMs: number): Promise<string> => {
    await stack.submit("slow", ms(heldMs));
    return (await stack.submit("slow", ms(runsMs))).id;
  };
  const openResources = async () => ({
    handles: await scrape(stack.url, "nodejs_active_handles_total"),
    timers: await scrape(stack.url, "nodejs_active_resources", { type: "Timeout" }),
  });
  const untilBackTo = (before: Awaited<ReturnType<typeof openResources>>) =>
    eventually(async () => {
      const now = await openResources();
      expect(now.handles).toBeLessThanOrEqual(before.handles + 8);
      expect(now.timers).toBeLessThanOrEqual(before.timers + 8);
    }, 10_000);

  beforeAll(async () => {
    redis = await startOwnRedis();
    stack = await TestStack.start({
      models: ["slow"],
      redisUrl: redis.url,
      timing: { api: { ...noticesOnly.api, ...busyMachineTiming } },
    });
  });
  afterAll(async () => {
    await stack.close();
    await redis.close();
  });

  test("a stream sends every state in order and ends with the final one", async () => {
    const id = await queuedFor(600, 400);
    const stream = events(id);
    const { headers, statusCode } = await stream.answered;
    expect(statusCode).toBe(200);
    expect(headers["content-type"]).toMatch(/^text\/event-stream\b/);
    const received = eventsIn(await stream.body);
    expect(received.map(({ event }) => event)).toEqual(["status", "status", "status"]);
    expect(received.map(({ data }) => data.status)).toEqual(["queued", "running", "succeeded"]);
    expect(new Set(received.map((event) => event.id)).size).toBe(3);
    expect(received[2]?.data).toEqual((await stack.get(`/v1/predictions/${id}`)).body);
    for (const { data } of received) expect(data.id).toBe(id);
  });

  test("a reconnect with Last-Event-ID gets no event twice, and 204 after the end", async () => {
    const id = await queuedFor(500, 700);
    const first = events(id);
    await first.until('"queued"');
    const [queued] = eventsIn(first.soFar());
    first.hangUp();
    const second = events(id, queued?.id);
    await second.until("\n\n");
    const [running, ...none] = eventsIn(second.soFar());
    expect([running?.data.status, none]).toEqual(["running", []]);
    second.hangUp();
    const [end, ...more] = eventsIn(await events(id, running?.id).body);
    expect([end?.data.status, more]).toEqual(["succeeded", []]);
    const after = events(id, end?.id);
    expect((await after.answered).statusCode).toBe(204);
    expect(await after.body).toBe("");
    // Without an id, or with an older one, only the final state is sent.
    for (const last of [undefined, queued?.id]) expect(eventsIn(await events(id, last).body)).toEqual([end]);
  });

  test("another owner's stream is unknown, and a key is required", async () => {
    const { id } = await stack.submit("slow", ms(1));
    for (const path of [`/v1/predictions/${id}/events`, `/v1/predictions/${id}?wait=5`]) {
      expect((await stack.get(path, { as: "bob" })).status).toBe(404);
      expect((await stack.get(path, { as: null })).status).toBe(401);
    }
  });

  test("a cancel reaches streams and waits", async () => {
    const { id } = await stack.submit("slow", ms(1), { delay_ms: 60_000 });
    const [stream, waiting] = [events(id), wait(id)];
    await stream.until('"scheduled"');
    expect((await stack.call("POST", `/v1/predictions/${id}/cancel`)).status).toBe(200);
    expect(eventsIn(await stream.body).map(({ data }) => data.status)).toEqual(["scheduled", "canceled"]);
    expect(JSON.parse(await waiting.body).status).toBe("canceled");
  });

  test("metadata named like fields of the answer change no field of a wait's answer", async () => {
    const metadata = { deduplicated: true, status: "failed" };
    const { body } = await stack.predict("slow", ms(1), { metadata });
    expect(body).toMatchObject({ status: "succeeded", deduplicated: false, metadata });
  });

  test("a stopping API ends its streams and answers its waits, and the stream continues at another API", async () => {
    const api = await stack.startApi();
    await eventually(async () => expect((await fetch(`${api.url}/ready`)).status).toBe(200));
    const id = await queuedFor(1500, 10);
    const stream = events(id, undefined, api.url);
    const waiting = openRequest(`${api.url}/v1/predictions/${id}?wait=60`);
    await Promise.all([stream.until('"queued"'), waiting.flushed]);
    expect(await api.stop()).toBe(0);
    const received = eventsIn(await stream.body);
    expect(received.map(({ data }) => data.status)).toEqual(["queued"]);
    expect(JSON.parse(await waiting.body)).toMatchObject({ id, status: "queued" });
    const rest = eventsIn(await events(id, received[0]?.id).body).map(({ data }) => data.status);
    expect([rest.at(-1), rest.includes("queued")]).toEqual(["succeeded", false]);
  });

  test("the end arrives although Redis drops every subscription while it is published", async () => {
    const id = await queuedFor(300, 600);
    const [stream, waiting] = [events(id), wait(id)];
    await stream.until('"queued"');
    let cuts = 0;
    await eventually(async () => {
      cuts += (await stack.redis.call("CLIENT", "KILL", "TYPE", "pubsub")) as number;
      expect((await stack.get(`/v1/predictions/${id}`)).body.status).toBe("succeeded");
    });
    // The wait answers before its time is over, which is as long as this test may take.
    expect(JSON.parse(await waiting.body)).toMatchObject({ id, status: "succeeded" });
    expect(eventsIn(await stream.body).at(-1)?.data.status).toBe("succeeded");
    expect(cuts).toBeGreaterThan(1);
  });

  test("disconnected clients leave no handles or timers behind, even if they disconnect at once", async () => {
    const { id } = await stack.submit("slow", ms(1), { delay_ms: 600_000 });
    const before = await openResources();
    const some = Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? events(id) : wait(id)));
    await eventually(async () => expect((await openResources()).timers).toBeGreaterThan(before.timers + 200));
    for (const request of some) request.hangUp();
    await untilBackTo(before);
    const hasty = Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? events(id) : wait(id)));
    await Promise.all(hasty.map((request) => request.flushed.then(() => request.hangUp())));
    await untilBackTo(before);
  });

  test("many waits and as many streams share one subscription, and each gets the end", async () => {
    const count = volume(400, 1500);
    const others = count / 5;
    await stack.workers.at(-1)?.stop();
    const ids = (await Promise.all(Array.from({ length: 1 + others }, () => stack.submit("slow", ms(1))))).map(
      ({ id }) => id,
    );
    // Measured only now, because the submitting client keeps its connections.
    const before = await openResources();
    // Half of them wait for one prediction, the rest for `others` different ones.
    const target = (i: number): string => ids[i % 2 === 0 ? 0 : 1 + (i % others)];
    const waits = Array.from({ length: count }, (_, i) => wait(target(i)));
    const streams = Array.from({ length: count }, (_, i) => events(target(i)));
    await Promise.all([...waits.map(({ flushed }) => flushed), ...streams.map((stream) => stream.until('"queued"'))]);
    await eventually(async () =>
      expect((await openResources()).handles).toBeGreaterThan(before.handles + (29 / 15) * count),
    );
    const clients = (await stack.redis.call("CLIENT", "LIST", "TYPE", "pubsub")) as string;
    expect(clients.match(/name=millrace-notices-/g)).toHaveLength(1);

    await stack.startWorker();
    const answers = await Promise.all(waits.map(async ({ body }) => JSON.parse(await body)));
    const received = await Promise.all(streams.map(async ({ body }) => eventsIn(await body)));
    for (const [i, answer] of answers.entries()) expect(answer).toMatchObject({ id: target(i), status: "succeeded" });
    for (const [i, list] of received.entries()) {
      expect(list.at(-1)?.data).toMatchObject({ id: target(i), status: "succeeded" });
      expect(new Set(list.map(({ id }) => id)).size).toBe(list.length);
    }
    await untilBackTo(before);
  });
});
