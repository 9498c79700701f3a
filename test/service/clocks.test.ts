import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver, secretOf } from "../support/http/receiver.js";
import { scrape } from "../support/http/scrape.js";
import { offClock } from "../support/stack/off-clock.js";
import { untilRunning } from "../support/stack/processes.js";
import { shortLocks, TestStack } from "../support/stack/stack.js";

const hourMs = 3_600_000;
/** What the measure of the store's time may be off by, on a busy machine. */
const measureMs = 250;

const places = [
  ["an API an hour ahead", 1, 0],
  ["an API an hour behind", -1, 0],
  ["a worker an hour ahead", 0, 1],
  ["a worker an hour behind", 0, -1],
  ["an API an hour ahead and a worker an hour behind", 1, -1],
] as const;

describe.each(places)("with %s of the store", (_is, apiHours, workerHours) => {
  let stack: TestStack;
  let receiver: Receiver;

  beforeAll(async () => {
    receiver = await Receiver.start();
    stack = await TestStack.start({
      models: ["slow"],
      workers: 0,
      apis: 0,
      timing: shortLocks,
      env: { WEBHOOK_SECRET: secretOf(1), WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
    });
    await stack.startWorker(offClock(workerHours * hourMs));
    await stack.startApi(offClock(apiHours * hourMs));
  });
  afterAll(async () => {
    await stack.close();
    await receiver.close();
  });

  const storeMs = async () => {
    const [seconds, microseconds] = (await stack.redis.time()).map(Number) as [number, number];
    return seconds * 1000 + microseconds / 1000;
  };
  /** Expects times in this order, the first and last of which are the store's. */
  const inOrder = (times: readonly (number | string)[]) => {
    const ms = times.map((time) => (typeof time === "string" ? Date.parse(time) : time));
    for (let i = 1; i < ms.length; i++) {
      const slackMs = i === 1 || i === ms.length - 1 ? measureMs : 0;
      expect((ms[i] as number) - (ms[i - 1] as number), JSON.stringify(times)).toBeGreaterThanOrEqual(-slackMs);
    }
  };

  test("times of a prediction are the store's, and its durations are right", async () => {
    const before = await storeMs();
    const { body } = await stack.predict("slow", { x: [[300]] });
    expect(body.status).toBe("succeeded");
    inOrder([before, body.created_at, body.started_at, body.finished_at, await storeMs()]);
    const { inference_ms, queue_ms, total_ms } = body.timings;
    const tookMs = (await storeMs()) - before + measureMs;
    expect(queue_ms).toBeGreaterThanOrEqual(0);
    expect(queue_ms).toBeLessThan(tookMs - 300 + measureMs);
    expect(inference_ms).toBeGreaterThanOrEqual(299);
    expect(total_ms).toBeLessThan(tookMs);
  });

  test("a delay_ms passes before a prediction starts, no more", async () => {
    const waited = stack.predict("slow", { x: [[1]] }, { delay_ms: 1500 });
    const { body } = await waited;
    expect(body.status).toBe("succeeded");
    const waitedMs = Date.parse(body.started_at) - Date.parse(body.created_at);
    expect(waitedMs).toBeGreaterThanOrEqual(1500 - measureMs);
    expect(waitedMs).toBeLessThan(20_000);
    const { status } = await stack.submit("slow", { x: [[1]] }, { delay_ms: hourMs / 2 });
    expect(status).toBe("scheduled");
  });

  test("an expires_in_ms ends what has not started by then, and nothing before", async () => {
    const first = await stack.submit("slow", { x: [[4000]] });
    await untilRunning(stack, "slow", [first.id]);
    const begun = await storeMs();
    const late = await stack.submit("slow", { x: [[1]] }, { expires_in_ms: 1000 });
    const inTime = await stack.submit("slow", { x: [[1]] }, { expires_in_ms: hourMs / 2 });
    expect((await stack.get(`/v1/predictions/${late.id}`)).body.status).toBe("queued");
    const expired = await stack.final(late.id);
    expect(expired.status).toBe("expired");
    inOrder([begun + 1000, expired.finished_at, await storeMs()]);
    expect((await stack.final(inTime.id)).status).toBe("succeeded");
  });

  test("a run longer than its lock keeps the lock and is run once", async () => {
    const { id } = await stack.submit("slow", { x: [[7000]] });
    const job = `${modelKeys(stack.prefix, "slow").queue}${id}`;
    await untilRunning(stack, "slow", [id]);
    const begun = performance.now();
    for (let elapsedMs = 0; elapsedMs < 5500; elapsedMs = performance.now() - begun) {
      expect(await stack.redis.exists(`${job}:lock`)).toBe(1);
      expect(await stack.redis.hget(job, "ats")).toBe("1");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(await stack.final(id)).toMatchObject({ status: "succeeded", attempts: 1 });
    const faults = stack.logged("queue error").map((line) => JSON.stringify(line));
    expect(faults.filter((fault) => fault.includes(id))).toEqual([]);
  });

  test("lists, batches and models show the store's time, and workers count as alive", async () => {
    const before = await storeMs();
    const { body: batch } = await stack.post("/v1/models/slow/batches", { inputs: [{ x: [[5]] }, { x: [[6]] }] });
    const { body: done } = await stack.get(`/v1/batches/${batch.id}?wait=20`);
    expect(done.status).toBe("succeeded");
    inOrder([before, done.created_at, done.started_at, done.finished_at, await storeMs()]);
    const { id } = await stack.submit("slow", { x: [[1]] });
    await stack.final(id);
    const { body: list } = await stack.get("/v1/predictions?model=slow&status=succeeded&limit=1");
    expect(list.data.map((one: { id: string }) => one.id)).toEqual([id]);
    const { body: health } = await stack.get("/monitoring/health", { as: "admin" });
    expect(health.models.slow).toMatchObject({ status: "ok", workers: 1 });
    const { body: statistics } = await stack.get("/monitoring/statistics");
    expect(statistics.models.slow.versions["1"].counts.succeeded).toBeGreaterThan(0);
  });

  test("a webhook is signed with the store's time, and sent at once", async () => {
    const path = "/hook";
    const before = await storeMs();
    const { id } = await stack.submit("slow", { x: [[1]] }, { webhook: { url: receiver.url(path) } });
    const { headers, raw } = await eventually(() => {
      const found = receiver.requests.find(({ raw }) => raw.toString().includes(id));
      if (found === undefined) throw new Error("no webhook has arrived");
      return found;
    });
    const after = await storeMs();
    inOrder([Math.floor(before / 1000) * 1000, Number(headers["webhook-timestamp"]) * 1000, after]);
    inOrder([before, JSON.parse(raw.toString()).timestamp, after]);
    // The receiver has a request before the worker has its answer, and keeps the attempt.
    const delivery = await eventually(async () => {
      const [found] = (await stack.get(`/v1/predictions/${id}/deliveries`)).body.data;
      expect(found.attempts).toHaveLength(1);
      return found;
    });
    inOrder([before, delivery.created_at, delivery.attempts[0].at, await storeMs()]);
  });

  test("a key holds until it expires", async () => {
    const make = (expires_in_ms: number) =>
      stack.post("/admin/keys", { owner: "carol", expires_in_ms }, { as: "admin" });
    const [long, short] = await Promise.all([make(hourMs / 2), make(1500)]);
    const status = async ({ body }: typeof long) => {
      const headers = { authorization: `Bearer ${body.key}` };
      return (await stack.get("/v1/predictions?limit=1", { headers })).status;
    };
    // An API hears of a new key a moment later.
    await eventually(async () => expect(await status(long)).toBe(200));
    await eventually(async () => expect(await status(short)).toBe(401));
    expect(await storeMs()).toBeGreaterThanOrEqual(Date.parse(short.body.expires_at) - measureMs);
    expect(await status(long)).toBe(200);
  });

  test("the offset is shown as a metric", async () => {
    const worker = `http://127.0.0.1:${stack.workers[0]?.port}`;
    const off = async (base: string, hours: number) =>
      expect(Math.abs((await scrape(base, "millrace_clock_offset_seconds")) - hours * 3600)).toBeLessThan(1);
    await off(stack.url, apiHours);
    await off(worker, workerHours);
  });
});

describe("a clock that steps by an hour while a process runs", () => {
  test.each([
    ["forward", hourMs],
    ["back", -hourMs],
  ])("changes nothing but the metric: %s", async (_is, stepMs) => {
    const stack = await TestStack.start({ models: ["slow"], workers: 0, apis: 0, timing: shortLocks });
    try {
      const worker = await stack.startWorker(offClock(0, stepMs));
      const api = await stack.startApi(offClock(0, stepMs));
      const running = await stack.submit("slow", { x: [[6000]] });
      const delayed = await stack.submit("slow", { x: [[1]] }, { delay_ms: 7000 });
      const expiring = await stack.submit("slow", { x: [[1]] }, { expires_in_ms: hourMs / 2 });
      await untilRunning(stack, "slow", [running.id]);
      for (const { child } of [worker, api]) child.kill("SIGUSR2");
      await eventually(async () => {
        for (const base of [api.url, `http://127.0.0.1:${worker.port}`]) {
          const offSeconds = await scrape(base, "millrace_clock_offset_seconds");
          expect(Math.abs(offSeconds - stepMs / 1000)).toBeLessThan(1);
        }
      });
      const after = await stack.predict("slow", { x: [[1]] });
      expect(after.body.status).toBe("succeeded");
      expect(await stack.final(running.id)).toMatchObject({ status: "succeeded", attempts: 1 });
      expect((await stack.final(expiring.id)).status).toBe("succeeded");
      const late = await stack.final(delayed.id);
      expect(late.status).toBe("succeeded");
      const waitedMs = Date.parse(late.started_at) - Date.parse(late.created_at);
      expect(waitedMs).toBeGreaterThanOrEqual(7000 - measureMs);
      expect(waitedMs).toBeLessThan(30_000);
      expect(Math.abs(Date.parse(late.finished_at) - Date.now())).toBeLessThan(30_000);
    } finally {
      await stack.close();
    }
  });
});
