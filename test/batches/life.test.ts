import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { batchKeys, counts, finalBatch, ndjson, resultsOf, submitBatch, types, upload } from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { eventsIn, openRequest } from "../support/http/open-request.js";
import { assertProblem } from "../support/http/problem.js";
import { localWebhooks, openWebhookSink, type WebhookSink } from "../support/http/webhook-sink.js";
import { assertNotified } from "../support/stack/assert-notified.js";
import { runNotes } from "../support/stack/processes.js";
import { noticesOnly, TestStack } from "../support/stack/stack.js";

const slow = "slow";
const echo = "echo-float32";
const manifests = {
  [slow]: { kind: "tensor", batching: { max_batch_rows: 2 } },
  [echo]: { kind: "tabular", input: { tensor: "x", features: ["a", "b", "c"] }, batching: { bulk_rows: 4 } },
};
const rowsOf = (count: number) => Array.from({ length: count }, (_, i) => [i, i + 0.5, -i - 1]);
const busy = (count: number, ms: number) => Array.from({ length: count }, (_, i) => ({ x: [[ms + (i % 3)]] }));

describe("a batch", () => {
  let stack: TestStack;
  let sink: WebhookSink;

  beforeAll(async () => {
    sink = await openWebhookSink();
    stack = await TestStack.start({ models: [slow, echo], manifests, env: localWebhooks, timing: noticesOnly });
  });
  afterAll(async () => {
    await stack?.close();
    await sink?.close();
  });

  const batchOf = async (id: string) => (await stack.get(`/v1/batches/${id}`)).body;

  test("is sent in events, at most four a second, with growing progress, up to the final state", async () => {
    const { id } = await submitBatch(stack, slow, ndjson(busy(300, 10)));
    const path = `${stack.url}/v1/batches/${id}/events`;
    // One watcher sets the pace, the other joins in between.
    const first = openRequest(path);
    await first.until("event: status");
    const second = openRequest(path);
    const begunAt = performance.now();
    const events = eventsIn(await second.body);
    const tookMs = performance.now() - begunAt;
    expect(eventsIn(await first.body).at(-1)?.data).toEqual(events.at(-1)?.data);
    expect((await second.answered).headers["content-type"]).toBe("text/event-stream");
    expect(events.length).toBeGreaterThan(2);
    expect(events.length).toBeLessThanOrEqual(Math.ceil((tookMs / 1000) * 4) + 1);
    for (const [i, { data, event }] of events.entries()) {
      expect(event).toBe("status");
      expect(data.counts.succeeded + data.counts.pending).toBe(300);
      expect(data.progress).toBeGreaterThanOrEqual(events[i - 1]?.data.progress ?? 0);
      expect(data.counts.succeeded).toBeGreaterThanOrEqual(events[i - 1]?.data.counts.succeeded ?? 0);
    }
    const last = events.at(-1);
    expect(last?.data).toMatchObject({ status: "succeeded", counts: counts(300), progress: 1 });
    expect(last?.data).toEqual(await batchOf(id));
    const back = openRequest(path, { headers: { "last-event-id": last?.id as string } });
    expect((await back.answered).statusCode).toBe(204);
    const late = openRequest(path, { headers: { "last-event-id": events[0]?.id as string } });
    expect(eventsIn(await late.body)).toEqual([last]);
  });

  test("answers ?wait as soon as it ends", async () => {
    const { id } = await submitBatch(stack, slow, ndjson(busy(8, 150)));
    const control = { model: slow, input: { x: [[1]] } };
    const many = await assertNotified(stack, control, () =>
      Promise.all(Array.from({ length: 5 }, () => stack.get(`/v1/batches/${id}?wait=50`))),
    );
    for (const { body } of many) expect(body).toMatchObject({ status: "succeeded", counts: counts(8) });
    assertProblem(await stack.get(`/v1/batches/${id}?wait=61`), 400, "bad_query");
    // A wait that begins at the moment of the end must leave no key either.
    for (let i = 0; i < 30; i++) {
      const { id: quick } = await submitBatch(stack, echo, ndjson(rowsOf(1)));
      await Promise.all([finalBatch(stack, quick), finalBatch(stack, quick)]);
    }
    const notes = [...(await batchKeys(stack, slow)), ...(await batchKeys(stack, echo))];
    expect(notes.filter((key) => key.includes("/interest:"))).toEqual([]);
  });

  test("canceled at half keeps finished rows, starts no further ones, and frees queue and memory", async () => {
    const { id } = await submitBatch(stack, slow, ndjson(busy(400, 8)));
    await eventually(async () => expect((await batchOf(id)).progress).toBeGreaterThanOrEqual(0.5), 40_000);
    const canceled = await stack.call("POST", `/v1/batches/${id}/cancel`);
    expect(canceled.status).toBe(200);
    const { body } = canceled;
    expect(body.status).toBe("canceled");
    expect(body.finished_at).not.toBeNull();
    expect(body.counts.succeeded).toBeGreaterThanOrEqual(200);
    expect(body.counts.canceled).toBeGreaterThan(0);
    expect(body.counts).toMatchObject({ total: 400, failed: 0, pending: 0, canceled: 400 - body.counts.succeeded });
    expect(body.progress).toBeCloseTo(body.counts.succeeded / 400, 3);
    assertProblem(await stack.call("POST", `/v1/batches/${id}/cancel`), 409, "state_conflict");
    // Waiting chunks of the canceled batch do not delay another batch of the model, and its state does not change.
    const { id: next } = await submitBatch(stack, slow, ndjson(busy(2, 1)));
    await finalBatch(stack, next);
    expect(await batchOf(id)).toEqual(body);
    const found = await resultsOf(stack, id);
    expect(found.map(({ index }) => index)).toEqual(Array.from({ length: 400 }, (_, i) => i));
    const succeeded = found.filter(({ status }) => status === "succeeded");
    expect(succeeded).toHaveLength(body.counts.succeeded);
    for (const { index, output } of succeeded) expect(output).toEqual({ y: [[8 + (index % 3)]] });
    expect(found.filter(({ status }) => status === "canceled")).toHaveLength(body.counts.canceled);
    const keys = modelKeys(stack.prefix, slow);
    expect(await batchKeys(stack, slow, id)).toEqual(
      [keys.batch(id), keys.batchLines(id), keys.batchResults(id)].sort(),
    );
    expect(Number(await stack.redis.get(keys.bulkRows))).toBe(0);
    await eventually(async () => expect(await runNotes(stack, slow)).toEqual(new Map()));
  });

  test("ends with one webhook, batch.completed, with the same data as GET, whatever its final status", async () => {
    const hook = (path: string) => ({ webhook: { url: sink.url(path) } });
    const query = `?webhook=${encodeURIComponent(sink.url("/rows"))}`;
    const byQuery = await submitBatch(stack, echo, ndjson([...rowsOf(9), "bad"]), { query });
    const asJson = await submitBatch(stack, echo, JSON.stringify({ inputs: rowsOf(3), ...hook("/json") }), {
      type: types.json,
    });
    const bad = await submitBatch(stack, echo, JSON.stringify({ inputs: [1], ...hook("/bad") }), { type: types.json });
    const stopped = await submitBatch(stack, slow, JSON.stringify({ inputs: busy(90, 100), ...hook("/canceled") }), {
      type: types.json,
    });
    await stack.call("POST", `/v1/batches/${stopped.id}/cancel`);
    for (const [path, { id }, status] of [
      ["/rows", byQuery, "partial"],
      ["/json", asJson, "succeeded"],
      ["/bad", bad, "failed"],
      ["/canceled", stopped, "canceled"],
    ] as const) {
      const [body] = await eventually(() => {
        expect(sink.at(path)).toHaveLength(1);
        return sink.at(path);
      });
      const batch = await batchOf(id);
      expect(body).toEqual({ type: "batch.completed", timestamp: batch.finished_at, data: batch });
      expect(batch.status).toBe(status);
    }
    for (const path of ["/rows", "/json", "/bad", "/canceled"]) expect(sink.at(path)).toHaveLength(1);
  });

  test("runs beside another batch and beside single predictions, which overtake it", async () => {
    const before = await submitBatch(stack, slow, ndjson(busy(500, 6)));
    const passing = await Promise.all(
      Array.from({ length: 10 }, async (_, i) => (await stack.predict(slow, { x: [[i]] })).body.output.y[0][0]),
    );
    expect(passing).toEqual(passing.map((_, i) => i));
    // Its 250 chunks still wait, and later single predictions did not wait for them.
    expect((await batchOf(before.id)).finished_at).toBeNull();
    const { body } = await stack.call("POST", `/v1/batches/${before.id}/cancel`);
    expect(body.counts).toMatchObject({ failed: 0, pending: 0, canceled: 500 - body.counts.succeeded });
    const [one, two, ...singles] = await Promise.all([
      submitBatch(stack, echo, ndjson(rowsOf(600))),
      submitBatch(stack, echo, ndjson(rowsOf(400).reverse())),
      ...Array.from({ length: 20 }, async (_, i) => (await stack.predict(echo, [i, i, i])).body.output.y[0][0]),
    ]);
    expect(singles).toEqual(singles.map((_, i) => i));
    expect((await finalBatch(stack, one.id)).counts).toEqual(counts(600));
    expect((await finalBatch(stack, two.id)).counts).toEqual(counts(400));
    expect((await resultsOf(stack, one.id)).map(({ output }) => output.y[0])).toEqual(rowsOf(600));
    expect((await resultsOf(stack, two.id)).map(({ output }) => output.y[0])).toEqual(rowsOf(400).reverse());
  });

  test("waits while there is no worker, and runs in order of priority when one starts", async () => {
    const [worker] = stack.workers as [TestStack["workers"][number]];
    expect(await worker.stop(40_000)).toBe(0);
    const send = (query: string) => submitBatch(stack, slow, ndjson(busy(2, 60)), { query });
    const last = await send("?priority=9");
    const middle = await send("?priority=2");
    const first = await send("");
    expect((await stack.get(`/v1/batches/${first.id}`)).body).toMatchObject({
      status: "queued",
      started_at: null,
      eta_ms: null,
      progress: 0,
    });
    expect(await resultsOf(stack, first.id)).toEqual([]);
    // A wait answers with the progress when its time is over.
    expect((await stack.get(`/v1/batches/${first.id}?wait=1`)).body).toMatchObject({
      status: "queued",
      finished_at: null,
    });
    // A batch canceled before its start has run nothing, and its chunks are skipped.
    const canceled = await send("");
    const { body } = await stack.call("POST", `/v1/batches/${canceled.id}/cancel`);
    expect(body).toMatchObject({ status: "canceled", started_at: null, progress: 0, rows_per_second: 0 });
    expect(body.counts).toEqual({ total: 2, succeeded: 0, failed: 0, canceled: 2, pending: 0 });
    await stack.startWorker();
    const ended = await Promise.all([first, middle, last].map(({ id }) => finalBatch(stack, id)));
    const times = ended.map(({ finished_at }) => Date.parse(finished_at));
    expect(times).toEqual([...times].sort((a, b) => a - b));
  });
});

test("ends with the expiry of all its keys after the result time, whatever its final status", async () => {
  const stack = await TestStack.start({ models: [slow, echo], manifests, env: { RESULT_TTL_SECONDS: "4" } });
  try {
    const ids: string[] = [];
    for (const body of [ndjson(rowsOf(30)), ndjson([...rowsOf(5), "bad"]), ndjson(["bad"])]) {
      const { id } = await submitBatch(stack, echo, body);
      await finalBatch(stack, id);
      expect(await batchKeys(stack, echo, id)).toHaveLength(body.includes("bad") ? 4 : 3);
      ids.push(id);
    }
    const { id } = await submitBatch(stack, slow, ndjson(busy(90, 50)));
    await stack.call("POST", `/v1/batches/${id}/cancel`);
    await eventually(async () => {
      for (const model of [slow, echo]) expect(await batchKeys(stack, model)).toEqual([]);
    });
    for (const gone of [...ids, id]) {
      assertProblem(await stack.get(`/v1/batches/${gone}`), 404, "batch_not_found");
      assertProblem(await stack.get(`/v1/batches/${gone}/results`), 404, "batch_not_found");
    }
    expect((await stack.get("/v1/batches")).body.data).toEqual([]);
    // Only the queue's newest finished jobs are left and, until the next batch, ids in the owner's index.
    const { base, batchQueue, ownedBatches } = modelKeys(stack.prefix, echo);
    const all = await (stack.redis as { keys(pattern: string): Promise<string[]> }).keys(`${stack.prefix}:*`);
    const left = all.filter(
      (key) => key.startsWith(base) && !key.startsWith(batchQueue) && ids.some((one) => key.includes(one)),
    );
    expect(left).toEqual([]);
    expect((await upload(stack, echo, ndjson(rowsOf(1)))).status).toBe(202);
    expect(await stack.redis.zcard(ownedBatches("alice"))).toBe(1);
  } finally {
    await stack.close();
  }
});
