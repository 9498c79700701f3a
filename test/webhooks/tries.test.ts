import { readWorkerConfig } from "@millrace/shared/config/worker-config.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { type Received, Receiver, type Responder, secretOf, verified } from "../support/http/receiver.js";
import { TestStack } from "../support/stack/stack.js";

const [newer, older] = [secretOf(2), secretOf(3)];
const noSuchId = (id: string) => `${id.slice(0, 8)}${"z".repeat(20)}`;

type Said = number | [number, Record<string, string>] | (() => [number, Record<string, string>]);

/** Answers each request by the word at its index, later ones by the last word. */
const saying =
  (...words: Said[]): Responder =>
  (_received, _response, before) => {
    const word = words[before] ?? (words.at(-1) as Said);
    const [status, headers] = typeof word === "number" ? [word, {}] : typeof word === "function" ? word() : word;
    return { status, headers, body: `${status} `.repeat(3000) };
  };

describe("tries of a webhook", () => {
  let stack: TestStack;
  const receivers: Receiver[] = [];

  beforeAll(async () => {
    stack = await TestStack.start({
      models: ["echo-int64"],
      env: { WEBHOOK_SECRET: `${newer} ${older}`, WEBHOOK_ALLOW_HOSTS: "10.0.0.0/8 127.0.0.1" },
      workerEnv: { WEBHOOK_RETRY_SCHEDULE: "1.3,0.1" },
    });
  });
  afterAll(async () => {
    await stack?.close();
    await Promise.all(receivers.map((receiver) => receiver.close()));
  });

  /** Submits a prediction with a webhook to its own receiver, since failures count against the host. */
  const send = async (...words: Said[]): Promise<{ id: string; receiver: Receiver }> => {
    const receiver = await Receiver.start(saying(...words));
    receivers.push(receiver);
    const webhook = { url: receiver.url("/") };
    return { id: (await stack.submit("echo-int64", { x: [[1, 2, 3]] }, { webhook })).id, receiver };
  };
  // biome-ignore lint/suspicious/noExplicitAny: see Answer
  const onlyDelivery = async (id: string): Promise<any> => {
    const { body, status } = await stack.get(`/v1/predictions/${id}/deliveries`);
    expect([status, body.data.length]).toEqual([200, 1]);
    return body.data[0];
  };
  const ended = (id: string, state: string) =>
    eventually(async () => {
      const delivery = await onlyDelivery(id);
      expect(delivery.status).toBe(state);
      return delivery;
    });
  const idsOf = (requests: Received[]) => new Set(requests.map(({ headers }) => headers["webhook-id"]));
  const seconds = ({ headers }: Received) => Number(headers["webhook-timestamp"]);

  test("a receiver that answers 500 is tried again with the same id and body, and a new signature", async () => {
    const { id, receiver } = await send(500, 200);
    const [first, second] = (await receiver.received("/", 2)) as [Received, Received];
    expect(idsOf([first, second]).size).toBe(1);
    expect(second.raw).toEqual(first.raw);
    expect(second.at - first.at).toBeGreaterThan(1100);
    expect(seconds(second)).toBeGreaterThan(seconds(first));
    expect(second.headers["webhook-signature"]).not.toBe(first.headers["webhook-signature"]);
    for (const request of [first, second]) {
      expect(verified(newer, request).data.id).toBe(id);
      expect(seconds(request) * 1000).toBeLessThanOrEqual(request.at);
    }
    expect(seconds(second) * 1000 + 1000).toBeGreaterThan(first.at);
    await ended(id, "delivered");
    expect(receiver.to("/")).toHaveLength(2);
  });

  test("during a rotation each of the two signatures passes by its own secret, newest first", async () => {
    const { receiver } = await send(200);
    const [request] = (await receiver.received("/")) as [Received];
    const signatures = (request.headers["webhook-signature"] as string).split(" ");
    expect(signatures).toHaveLength(2);
    const signedBy = (signature: string | undefined) => ({
      ...request,
      headers: { ...request.headers, "webhook-signature": signature },
    });
    expect(verified(newer, signedBy(signatures[0])).type).toBe("prediction.completed");
    expect(verified(older, signedBy(signatures[1])).type).toBe("prediction.completed");
    expect(() => verified(older, signedBy(signatures[0]))).toThrow("No matching signature");
    expect(() => verified(newer, signedBy(signatures[1]))).toThrow("No matching signature");
    expect(() => verified(newer, { ...request, raw: Buffer.concat([request.raw, Buffer.from(" ")]) })).toThrow();
  });

  test.each([
    ["in seconds", () => "3", 3000],
    ["as a date", () => new Date(Date.now() + 4000).toUTCString(), 2900],
  ])("a Retry-After %s delays the next try beyond the schedule", async (_what, retryAfter, leastMs) => {
    const { id, receiver } = await send(() => [503, { "retry-after": retryAfter() }], 200);
    const [first, second] = (await receiver.received("/", 2)) as [Received, Received];
    expect(second.at - first.at).toBeGreaterThan(leastMs - 50);
    expect((await ended(id, "delivered")).attempts).toHaveLength(2);
  });

  test("a 410 ends a delivery at once, and the end of the schedule ends it as failed", async () => {
    const [gone, never] = [await send(410), await send(500)];
    const failed = await ended(never.id, "failed");
    expect(failed.attempts.map(({ status }: { status: number }) => status)).toEqual([500, 500, 500]);
    expect(idsOf(never.receiver.requests)).toEqual(new Set([failed.id]));
    expect(never.receiver.requests).toHaveLength(3);
    const { attempts } = await ended(gone.id, "failed");
    // By now the same schedule has ended for the other delivery.
    expect(attempts).toHaveLength(1);
    expect(gone.receiver.requests).toHaveLength(1);
  });

  test("every attempt is readable with its time, status, duration, error and 4 KiB of the answer", async () => {
    const { id, receiver } = await send(500, 500, 500, 200);
    const delivery = await ended(id, "failed");
    expect(delivery).toMatchObject({ event: "prediction.completed", url: receiver.url("/") });
    expect(delivery.attempts).toHaveLength(3);
    for (const [i, attempt] of delivery.attempts.entries()) {
      expect(attempt).toEqual({
        at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:]+\.\d{3}Z$/),
        status: 500,
        duration_ms: expect.any(Number),
        error: expect.stringContaining("500"),
        response: "500 ".repeat(1024),
      });
      // Recorded when it was answered, before the next one.
      const at = Date.parse(attempt.at);
      expect(at).toBeGreaterThanOrEqual((receiver.to("/")[i] as Received).at);
      const next = receiver.to("/")[i + 1];
      if (next !== undefined) expect(at).toBeLessThanOrEqual(next.at);
    }

    // The receiver works again, and its owner redelivers the missed webhook.
    const path = `/v1/deliveries/${delivery.id}/redeliver`;
    expect((await stack.post(path, undefined, { as: "reader" })).status).toBe(403);
    expect((await stack.post(path, undefined, { as: "bob" })).status).toBe(404);
    expect((await stack.get(`/v1/predictions/${id}/deliveries`, { as: "bob" })).status).toBe(404);
    const unknown = await stack.post(`/v1/deliveries/${noSuchId(delivery.id)}/redeliver`, undefined);
    expect([unknown.status, unknown.body.code]).toEqual([404, "delivery_not_found"]);
    expect((await stack.post(path, undefined)).status).toBe(202);
    const requests = await receiver.received("/", 4);
    expect(idsOf(requests)).toEqual(new Set([delivery.id]));
    expect(verified(newer, requests[3] as Received).data.id).toBe(id);
    const after = await ended(id, "delivered");
    expect(
      after.attempts.map(({ error, status }: { error: string | null; status: number }) => [status, error]),
    ).toEqual([...Array.from({ length: 3 }, () => [500, "answered 500"]), [200, null]]);
  });

  test("a delivered webhook can be redelivered, a pending one cannot", async () => {
    const { id, receiver } = await send(200);
    const { id: deliveryId } = await ended(id, "delivered");
    expect((await stack.post(`/v1/deliveries/${deliveryId}/redeliver`, undefined)).status).toBe(202);
    expect(idsOf(await receiver.received("/", 2))).toEqual(new Set([deliveryId]));
    await eventually(async () => expect((await onlyDelivery(id)).attempts).toHaveLength(2));

    const waits = await send([500, { "retry-after": "600" }]);
    const delivery = await eventually(async () => {
      const found = await onlyDelivery(waits.id);
      expect(found.attempts).toHaveLength(1);
      return found;
    });
    expect(delivery.status).toBe("pending");
    const refused = await stack.post(`/v1/deliveries/${delivery.id}/redeliver`, undefined);
    expect([refused.status, refused.body.code]).toEqual([409, "state_conflict"]);
  });

  test("the default schedule is 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h", () => {
    const { webhookRetryDelaysMs } = readWorkerConfig({ REDIS_URL: "redis://127.0.0.1" });
    const minutes = [5, 30, 120, 300, 600, 840, 1200, 1440];
    expect(webhookRetryDelaysMs).toEqual([5000, ...minutes.map((count) => count * 60_000)]);
  });
});
