import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver, secretOf, verified } from "../support/http/receiver.js";
import { TestStack } from "../support/stack/stack.js";

const secret = secretOf(1);
const both = ["prediction.started", "prediction.completed"];
const kind = { kind: "tensor", batching: { max_batch_rows: 1 } };

describe("webhooks", () => {
  let stack: TestStack;
  let receiver: Receiver;

  beforeAll(async () => {
    receiver = await Receiver.start();
    stack = await TestStack.start({
      models: ["echo-int64", "slow", "throws-on-row"],
      manifests: { slow: kind, "throws-on-row": { ...kind, attempts: 1 } },
      workers: 0,
      env: { WEBHOOK_SECRET: secret, WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
    });
    await stack.startWorker({ WORKER_ROLES: "inference" });
  });
  afterAll(async () => {
    await stack?.close();
    await receiver?.close();
  });

  const hook = (path: string, events?: string[]) => ({
    webhook: { url: receiver.url(path), ...(events && { events }) },
  });
  const deliveriesOf = async (id: string) => (await stack.get(`/v1/predictions/${id}/deliveries`)).body.data;
  const untilRunning = (id: string) =>
    eventually(async () => expect((await stack.get(`/v1/predictions/${id}`)).body.status).toBe("running"));

  /** Asserts that a path gets one webhook, a signed `prediction.completed` with the prediction. */
  async function assertCompletedWebhook(path: string, id: string, status: string) {
    const [request] = await receiver.received(path);
    const body = verified(secret, request as NonNullable<typeof request>);
    const { body: prediction } = await stack.get(`/v1/predictions/${id}`);
    expect(body).toEqual({ type: "prediction.completed", timestamp: expect.any(String), data: prediction });
    expect(prediction.status).toBe(status);
    expect(body.timestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    await eventually(async () => {
      const deliveries = await deliveriesOf(id);
      const own = deliveries.filter(({ url }: { url: string }) => url === receiver.url(path));
      expect(own.map((delivery: { id: string; status: string }) => [delivery.id, delivery.status])).toEqual([
        [request?.headers["webhook-id"], "delivered"],
      ]);
    });
    expect(receiver.to(path)).toHaveLength(1);
    return prediction;
  }

  test("a worker with the inference role leaves webhooks to one with the webhooks role without models", async () => {
    const { id } = await stack.submit("echo-int64", { x: [[1, 2, 3]] }, hook("/roles"));
    expect(await stack.final(id)).toMatchObject({ status: "succeeded" });
    expect(await deliveriesOf(id)).toMatchObject([{ status: "pending", event: "prediction.completed", attempts: [] }]);
    expect(receiver.requests).toEqual([]);
    const worker = await stack.startWorker({ WORKER_ROLES: "webhooks", MODELS_DIR: "/nonexistent" });
    await assertCompletedWebhook("/roles", id, "succeeded");
    const ready = await (await fetch(`http://127.0.0.1:${worker.port}/ready`)).json();
    expect(ready).toMatchObject({ ready: true, roles: ["webhooks"], delivers_webhooks: true });
  });

  test("a failed prediction is delivered with its error", async () => {
    const { id } = await stack.submit("throws-on-row", { x: [[99]] }, hook("/failed"));
    const prediction = await assertCompletedWebhook("/failed", id, "failed");
    expect(prediction.error.code).toBe("inference_failed");
  });

  test("a canceled prediction is delivered, whether it was waiting or running", async () => {
    const waits = await stack.submit("echo-int64", { x: [[1, 2, 3]] }, { delay_ms: 600_000, ...hook("/canceled") });
    expect((await stack.post(`/v1/predictions/${waits.id}/cancel`, undefined)).status).toBe(200);
    await assertCompletedWebhook("/canceled", waits.id, "canceled");
    const runs = await stack.submit("slow", { x: [[20_000]] }, hook("/canceled-running"));
    await untilRunning(runs.id);
    expect((await stack.post(`/v1/predictions/${runs.id}/cancel`, undefined)).status).toBe(200);
    await assertCompletedWebhook("/canceled-running", runs.id, "canceled");
  });

  test("a prediction found to be expired by a read is delivered, while the slot is still busy", async () => {
    const before = await stack.submit("slow", { x: [[20_000]] });
    await untilRunning(before.id);
    const { id } = await stack.submit("slow", { x: [[1]] }, { expires_in_ms: 50, ...hook("/expired") });
    await eventually(async () => expect((await stack.get(`/v1/predictions/${id}`)).body.status).toBe("expired"));
    const prediction = await assertCompletedWebhook("/expired", id, "expired");
    expect(prediction.started_at).toBeNull();
    expect((await stack.post(`/v1/predictions/${before.id}/cancel`, undefined)).status).toBe(200);
  });

  test("a prediction that expires without a read and without a free slot is delivered too", async () => {
    const before = await stack.submit("slow", { x: [[20_000]] });
    await untilRunning(before.id);
    const { id } = await stack.submit("slow", { x: [[1]] }, { expires_in_ms: 50, ...hook("/expired-unread") });
    await assertCompletedWebhook("/expired-unread", id, "expired");
    expect((await stack.get(`/v1/predictions/${before.id}`)).body.status).toBe("running");
    expect((await stack.post(`/v1/predictions/${before.id}/cancel`, undefined)).status).toBe(200);
  });

  test("each joined submission is delivered with the common id, one from the cache with its own", async () => {
    const input = { x: [[400]] };
    const first = await stack.submit("slow", input, { cache: true, metadata: { first: 1 }, ...hook("/first") });
    const joined = await stack.submit("slow", input, { cache: true, ...hook("/joined") });
    const silent = await stack.submit("slow", input, { cache: true });
    expect([joined.id, joined.deduplicated, silent.id]).toEqual([first.id, true, first.id]);
    await assertCompletedWebhook("/first", first.id, "succeeded");
    const prediction = await assertCompletedWebhook("/joined", first.id, "succeeded");
    expect(prediction).toMatchObject({ output: { y: [[400]] }, metadata: { first: 1 } });
    expect(await deliveriesOf(first.id)).toHaveLength(2);

    const cached = await stack.predict("slow", input, { cache: true, ...hook("/cached") });
    expect([cached.status, cached.body.cached]).toEqual([200, true]);
    expect(cached.body.id).not.toBe(first.id);
    expect(await assertCompletedWebhook("/cached", cached.body.id, "succeeded")).toEqual(cached.body);
  });

  test("prediction.started is delivered before the end, with the running prediction", async () => {
    const { id } = await stack.submit("slow", { x: [[700]] }, hook("/started", both));
    const [started] = (await receiver.received("/started")) as [(typeof receiver.requests)[number]];
    expect((await stack.get(`/v1/predictions/${id}`)).body.status).toBe("running");
    const [, completed] = (await receiver.received("/started", 2)) as typeof receiver.requests;
    const bodies = [started, completed as typeof started].map((request) => verified(secret, request));
    expect(bodies.map(({ data, type }) => [type, data.id, data.status])).toEqual([
      ["prediction.started", id, "running"],
      ["prediction.completed", id, "succeeded"],
    ]);
    const { started_at } = bodies[1].data;
    expect(bodies[0].data).toMatchObject({ started_at, finished_at: null, attempts: 1, output: null });
    expect(started.headers["webhook-id"]).not.toBe(completed?.headers["webhook-id"]);
    expect(receiver.to("/started")).toHaveLength(2);
  });

  test.each([
    ["without a webhook of its own", {}],
    ["with metadata like a prediction that never started", { metadata: { started_at: null } }],
  ])("a submission joined after the start of a prediction %s gets prediction.started too", async (what, rest) => {
    const path = `/late-${what.length}`;
    const input = { x: [[500 + what.length]] };
    const { id } = await stack.submit("slow", input, { cache: true, ...rest });
    await untilRunning(id);
    const joined = await stack.submit("slow", input, { cache: true, ...hook(path, both) });
    expect(joined.id).toBe(id);
    expect(await stack.final(id)).toMatchObject({ status: "succeeded" });
    expect((await deliveriesOf(id)).map(({ event }: { event: string }) => event).toSorted()).toEqual(both.toSorted());
    const bodies = (await receiver.received(path, 2)).map((request) => verified(secret, request));
    expect(bodies.map(({ data, type }) => [type, data.id]).toSorted()).toEqual(
      both.toSorted().map((type) => [type, id]),
    );
  });

  test("an invalid webhook is refused with 422 and a pointer to its fault", async () => {
    const url = receiver.url("/refused");
    const refused: [unknown, string][] = [
      [{ url, events: ["prediction.exploded"] }, "/webhook/events/0"],
      [{ url, events: ["prediction.completed", "batch.completed"] }, "/webhook/events/1"],
      [{ url, events: [] }, "/webhook/events"],
      [{ url, secret: "x" }, "/webhook/secret"],
      [{ events: both }, "/webhook/url"],
      [{ url: 7 }, "/webhook/url"],
      [{ url: "nonsense" }, "/webhook/url"],
      [{ url: "https://127.0.0.2/" }, "/webhook/url"],
      [{ url: "https://localhost/" }, "/webhook/url"],
      [{ url: "http://example.com/" }, "/webhook/url"],
      ["nonsense", "/webhook/url"],
      [null, "/webhook"],
    ];
    for (const [webhook, pointer] of refused) {
      const answer = await stack.post("/v1/models/echo-int64/predictions", { input: { x: [[1, 2, 3]] }, webhook });
      expect([answer.status, answer.body.errors?.map((fault: { pointer: string }) => fault.pointer)]).toEqual([
        422,
        [pointer],
      ]);
      expect(answer.body.detail).not.toMatch(/\d+\.\d+\.\d+\.\d+|ENOTFOUND/);
    }
    expect(receiver.to("/refused")).toEqual([]);
  });

  test("an API without WEBHOOK_SECRET refuses webhooks with 422, and accepts predictions without one", async () => {
    const { url } = await stack.startApi({ WEBHOOK_SECRET: "" });
    const input = { x: [[1, 2, 3]] };
    const refused = await stack.post("/v1/models/echo-int64/predictions", { input, ...hook("/unsigned") }, { url });
    expect(refused.status).toBe(422);
    expect(refused.headers.get("content-type")).toMatch(/^application\/problem\+json/);
    expect(refused.body.detail).toContain("WEBHOOK_SECRET");
    expect((await stack.predict("echo-int64", input, {}, { url })).body.status).toBe("succeeded");
    expect(receiver.to("/unsigned")).toEqual([]);
  });
});
