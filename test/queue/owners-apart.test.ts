import { modelTag, newId } from "@millrace/shared/redis/ids.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { localWebhooks, openWebhookSink, type WebhookSink } from "../support/http/webhook-sink.js";
import { flow } from "../support/stack/flows.js";
import { type Answer, TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const others = ["bob", "reader", "admin"] as const;

describe("separation of owners", () => {
  let stack: TestStack;
  let sink: WebhookSink;
  /** Alice's: a final prediction, a scheduled one, a final batch, and a delivery. */
  let finished: string;
  let waiting: string;
  let batch: string;
  let delivery: string;

  beforeAll(async () => {
    sink = await openWebhookSink();
    stack = await TestStack.start({ models: [tree], env: localWebhooks });
    const webhook = { url: sink.url("/alice") };
    finished = (await stack.predict(tree, flow(1), { webhook, metadata: { secret: "alice-only" } })).body.id;
    waiting = (await stack.submit(tree, flow(2), { delay_ms: 600_000 })).id;
    const inputs = [flow(3), [1]];
    batch = (await stack.post(`/v1/models/${tree}/batches`, { inputs, metadata: { secret: "alice-only" } })).body.id;
    await stack.get(`/v1/batches/${batch}?wait=30`);
    delivery = await eventually(async () => {
      const { body } = await stack.get(`/v1/predictions/${finished}/deliveries`);
      expect(body.data).toHaveLength(1);
      return body.data[0].id as string;
    });
  });
  afterAll(async () => {
    await stack.close();
    await sink.close();
  });

  /** An answer without the parts that differ in every answer. */
  const comparable = ({ body, headers, status }: Answer) => {
    const { request_id: _, ...rest } = body;
    const fixed = [...headers].filter(([name]) => name !== "date" && name !== "x-request-id");
    return { status, headers: fixed, body: rest };
  };

  const paths: [method: string, kind: "predictions" | "batches" | "deliveries", rest: string][] = [
    ["GET", "predictions", ""],
    ["GET", "predictions", "?wait=20"],
    ["GET", "predictions", "/events"],
    ["GET", "predictions", "/deliveries"],
    ["POST", "predictions", "/cancel"],
    ["POST", "predictions", "/retry"],
    ["GET", "batches", ""],
    ["GET", "batches", "?wait=20"],
    ["GET", "batches", "/events"],
    ["GET", "batches", "/results"],
    ["GET", "batches", "/results?from=1"],
    ["GET", "batches", "/deliveries"],
    ["POST", "batches", "/cancel"],
    ["POST", "batches", "/retry"],
    ["POST", "deliveries", "/redeliver"],
  ];
  test.each(paths)("%s of another's %s%s gets the answer of an unknown id", async (method, kind, rest) => {
    const ids = kind === "predictions" ? [finished, waiting] : kind === "batches" ? [batch] : [delivery];
    for (const as of others) {
      if (method === "POST" && as === "reader") continue;
      // A key with `admin` reads what all owners have, and changes nothing of it; see `access/scopes`.
      if (method === "GET" && as === "admin") continue;
      const unknown = await stack.call(method, `/v1/${kind}/${newId(modelTag(tree))}${rest}`, { as });
      assertProblem(
        unknown,
        404,
        `${{ predictions: "prediction", batches: "batch", deliveries: "delivery" }[kind]}_not_found`,
      );
      for (const id of ids)
        expect(comparable(await stack.call(method, `/v1/${kind}/${id}${rest}`, { as }))).toEqual(comparable(unknown));
    }
    // An id of one kind is unknown as another kind.
    const wrong = kind === "predictions" ? batch : finished;
    expect((await stack.call(method, `/v1/${kind}/${wrong}${rest}`)).status).toBe(404);
  });

  test("requests of other owners changed nothing", async () => {
    expect((await stack.get(`/v1/predictions/${waiting}`)).body.status).toBe("scheduled");
    expect((await stack.get(`/v1/predictions/${finished}`)).body.status).toBe("succeeded");
    expect((await stack.get(`/v1/batches/${batch}`)).body.status).toBe("partial");
  });

  test("lists have the caller's own only, even with another owner's cursor", async () => {
    const first = (await stack.get("/v1/predictions?limit=1")).body;
    for (const as of others) {
      for (const kind of ["predictions", "batches"]) {
        for (const query of ["", `?cursor=${first.next_cursor}`, `?model=${tree}`]) {
          expect((await stack.get(`/v1/${kind}${query}`, { as })).body.data).toEqual([]);
        }
      }
    }
  });

  test("an identical submission of another owner is neither joined nor answered from the cache", async () => {
    const submission = { input: flow(4), delay_ms: 600_000 };
    const path = `/v1/models/${tree}/predictions`;
    const mine = await stack.post(path, submission);
    const theirs = await stack.post(path, submission, { as: "bob" });
    expect([theirs.status, theirs.body.deduplicated]).toEqual([202, false]);
    expect(theirs.body.id).not.toBe(mine.body.id);
    await stack.predict(tree, flow(5), { cache: true });
    const computed = await stack.predict(tree, flow(5), { cache: true }, { as: "bob" });
    expect(computed.body.cached).toBe(false);
  });

  test("the same Idempotency-Key of two owners is two keys", async () => {
    const headers = { "idempotency-key": "the-same" };
    const path = `/v1/models/${tree}/predictions`;
    const mine = await stack.post(path, { input: flow(6) }, { headers });
    const theirs = await stack.post(path, { input: flow(7) }, { headers, as: "bob" });
    expect([mine.status, theirs.status]).toEqual([202, 202]);
    expect(theirs.body.id).not.toBe(mine.body.id);
  });

  test("the response time does not distinguish another's id from an unknown one", async () => {
    const times = { foreign: [] as number[], unknown: [] as number[] };
    for (let i = 0; i < 300; i++) {
      for (const [kind, id] of [
        ["foreign", i % 2 === 0 ? finished : waiting],
        ["unknown", newId(modelTag(tree))],
      ] as const) {
        const begun = performance.now();
        await stack.get(`/v1/predictions/${id}`, { as: "bob" });
        times[kind].push(performance.now() - begun);
      }
    }
    const median = (list: number[]) => list.sort((a, b) => a - b)[list.length >> 1] as number;
    // Milliseconds on a busy machine; a remaining difference is far below the noise of a network.
    expect(Math.abs(median(times.foreign) - median(times.unknown))).toBeLessThan(0.5 * median(times.unknown));
  });

  test("neither metrics nor logs contain data of an owner, and metrics no owner name", async () => {
    const { body } = await stack.get("/metrics", { as: null });
    expect(body).not.toMatch(/alice|bob|reader/);
    expect(stack.log.map((line) => JSON.stringify(line)).join("\n")).not.toContain("alice-only");
  });
});
