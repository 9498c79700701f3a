import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { scrape } from "../support/http/scrape.js";
import { volume } from "../support/run/volume.js";
import { manifestOf } from "../support/stack/flows.js";
import type { Answer } from "../support/stack/stack.js";
import { startTwoApiStack, type TwoApiStack, tree } from "../support/stack/two-api-stack.js";

describe("identical submissions", () => {
  let { stack, sink, startWorker, send, done, apiUrl, freshFlow, close } = {} as TwoApiStack;

  beforeAll(async () => {
    ({ stack, sink, startWorker, send, done, apiUrl, freshFlow, close } = await startTwoApiStack());
  });
  afterAll(() => close());

  test("hundreds at once over two APIs are one inference, and each one's webhook is delivered once", async () => {
    const callers = volume(250, 1000);
    const webhookCount = callers / 5;
    // Without a worker the model stays known, and nothing ends before all are accepted.
    await stack.workers[0]?.stop();
    const input = freshFlow();
    const hook = (i: number) => (i < webhookCount ? { webhook: { url: sink.url(`/thousand/${i}`) } } : {});
    const one = async (i: number): Promise<Answer> => {
      const headers = { "idempotency-key": `thousand-${i}` };
      const answer = await send(tree, input, { metadata: { i }, ...hook(i) }, { ...apiUrl(i), headers });
      // A busy Redis or API answers 503; then the same request is sent again, which is safe by the contract.
      return answer.status === 503 ? one(i) : answer;
    };
    const answers = await Promise.all(Array.from({ length: callers }, (_, i) => one(i)));
    const worker = await startWorker();
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([202]));
    const sentOnce = answers.filter(({ headers }) => headers.get("idempotency-replayed") === null);
    const firsts = sentOnce.filter(({ body }) => !body.deduplicated).length;
    expect(sentOnce.length === callers ? [1] : [0, 1]).toContain(firsts);
    const { id, metadata } = answers[0]?.body ?? {};
    for (const { body } of answers) expect(body).toMatchObject({ id, metadata });

    expect(await stack.final(id)).toMatchObject({ status: "succeeded", attempts: 1, metadata, deduplicated: false });
    const url = `http://127.0.0.1:${worker.port}`;
    await eventually(async () => expect(await scrape(url, "ml_webhook_attempt_total")).toBe(webhookCount));
    for (let i = 0; i < webhookCount; i++) {
      const event = { type: "prediction.completed", data: { id, status: "succeeded", metadata } };
      expect(sink.at(`/thousand/${i}`), `webhook ${i}`).toMatchObject([event]);
    }
    expect(await scrape(url, "ml_prediction_total", { model: tree })).toBe(1);
  });

  test("after the end are answered from the cache, as new predictions with their own webhooks", async () => {
    const input = freshFlow();
    const original = await done(tree, input, { metadata: { who: "first" } });
    const webhook = { url: sink.url("/cached") };
    const hit = await send(tree, input, { metadata: { who: "second" }, webhook }, apiUrl(1));
    expect(hit.status).toBe(200);
    const own = { metadata: { who: "second" }, cached: true, deduplicated: false };
    expect(hit.body).toMatchObject({ ...own, status: "succeeded", output: original.output });
    expect(hit.body.id).not.toBe(original.id);
    expect(hit.headers.get("location")).toBe(`/v1/predictions/${hit.body.id}`);
    expect((await stack.get(`/v1/predictions/${hit.body.id}`)).body).toEqual(hit.body);
    await eventually(() => expect(sink.at("/cached")).toHaveLength(1));
    expect(sink.at("/cached")[0]).toMatchObject({ type: "prediction.completed", data: hit.body });
  });

  test("may give the same flow as an array or as an object", async () => {
    const input = freshFlow();
    const original = await done(tree, input);
    const names: string[] = manifestOf(tree).input.features;
    const byName = Object.fromEntries(names.map((name, i) => [name, input[i]]).reverse());
    expect((await send(tree, byName)).body).toMatchObject({ cached: true, output: original.output });
  });

  test("of another owner are neither joined nor answered from the cache", async () => {
    const input = { x: [[600]] };
    const alice = await send("slow", input);
    const bob = await send("slow", input, {}, { as: "bob" });
    expect(bob.status).toBe(202);
    expect(bob.body).toMatchObject({ deduplicated: false, cached: false });
    expect(bob.body.id).not.toBe(alice.body.id);
    expect((await stack.get(`/v1/predictions/${alice.body.id}`, { as: "bob" })).status).toBe(404);
    await Promise.all([stack.final(alice.body.id), stack.final(bob.body.id, { as: "bob" })]);

    const own = freshFlow();
    await done(tree, own);
    expect((await send(tree, own, {}, { as: "bob" })).status).toBe(202);
  });

  test("with another version, priority, delay or expiry are not identical", async () => {
    const input = freshFlow();
    const changes = [{}, { version: "2" }, { priority: 5 }, { delay_ms: 50 }, { expires_in_ms: 60_000 }];
    const kinds = changes.map((change) => ({ version: "1", ...change }));
    const slotHolder = await stack.submit("slow", { x: [[500]] });
    for (const pass of ["on its way", "cached"]) {
      const answers = await Promise.all(kinds.map((kind) => send(tree, input, kind)));
      expect(new Set(answers.map(({ body }) => body.id)).size, pass).toBe(kinds.length);
      for (const [i, { body }] of answers.entries()) {
        expect(body, JSON.stringify(kinds[i])).toMatchObject({ cached: pass === "cached", deduplicated: false });
      }
      await Promise.all([slotHolder, ...answers.map(({ body }) => body)].map(({ id }) => stack.final(id)));
    }
  });

  test("with cache: false are neither joined nor answered from the cache nor stored in it", async () => {
    const [input, other] = [freshFlow(), freshFlow()];
    await stack.submit("slow", { x: [[300]] });
    const joinable = await send(tree, input);
    const alone = await send(tree, input, { cache: false });
    expect(alone.status).toBe(202);
    expect(alone.body).toMatchObject({ deduplicated: false, cached: false });
    expect(alone.body.id).not.toBe(joinable.body.id);
    await stack.final(joinable.body.id);
    expect(await done(tree, input, { cache: false })).toMatchObject({ cached: false, attempts: 1 });
    await done(tree, other, { cache: false });
    expect((await send(tree, other)).status).toBe(202);
  });

  test("that failed are not cached", async () => {
    const first = await done("throws-on-row", { x: [[99]] });
    const second = await done("throws-on-row", { x: [[99]] });
    expect([first.status, second.status]).toEqual(["failed", "failed"]);
    expect(second).toMatchObject({ cached: false, deduplicated: false, attempts: 1 });
    expect(second.id).not.toBe(first.id);
  });

  test("are computed again after the model's cache time", async () => {
    const input = { x: [[1, 2, 3]] };
    await done("echo-float32", input);
    const begun = performance.now();
    expect((await send("echo-float32", input)).body.cached).toBe(true);
    await eventually(async () => expect((await send("echo-float32", input)).status).toBe(202));
    expect(performance.now() - begun).toBeGreaterThan(500);
  });

  test("that are joined are canceled together, and the next one is computed", async () => {
    await stack.submit("slow", { x: [[500]] });
    const input = freshFlow();
    const [one, two] = await Promise.all(
      ["/one", "/two"].map((path, i) => send(tree, input, { webhook: { url: sink.url(path) } }, apiUrl(i))),
    );
    expect(two?.body.id).toBe(one?.body.id);
    expect((await stack.call("POST", `/v1/predictions/${two?.body.id}/cancel`)).status).toBe(200);
    await eventually(() => {
      for (const path of ["/one", "/two"]) {
        expect(sink.at(path)).toMatchObject([{ data: { id: one?.body.id, status: "canceled" } }]);
      }
    });
    const next = await send(tree, input);
    expect(next.body).toMatchObject({ deduplicated: false, cached: false });
    expect(await stack.final(next.body.id)).toMatchObject({ status: "succeeded" });
  });

  test("are not joined to an expired prediction", async () => {
    await stack.submit("slow", { x: [[1500]] });
    const input = freshFlow();
    const rest = { expires_in_ms: 200 };
    const expired = await send(tree, input, rest);
    const deadline = Date.parse(expired.body.created_at) + 200;
    await eventually(() => expect(Date.now()).toBeGreaterThan(deadline + 20));
    const next = await send(tree, input, rest);
    expect(next.body.id).not.toBe(expired.body.id);
    expect(next.body).toMatchObject({ status: "queued", deduplicated: false });
  });

  test("are counted as hits, joins and misses", async () => {
    const counts = () =>
      Promise.all(
        ["miss", "join", "hit"].map(async (outcome) => {
          const each = stack.apis.map(({ url }) => scrape(url, "ml_dedup_total", { model: "slow", outcome }));
          return (await Promise.all(each)).reduce((sum, value) => sum + value, 0);
        }),
      );
    const before = await counts();
    const first = await send("slow", { x: [[701]] });
    for (let i = 0; i < 2; i++) expect((await send("slow", { x: [[701]] }, {}, apiUrl(i))).body.id).toBe(first.body.id);
    await stack.final(first.body.id);
    for (let i = 0; i < 3; i++) expect((await send("slow", { x: [[701]] }, {}, apiUrl(i))).body.cached).toBe(true);
    const after = await counts();
    expect(after.map((value, i) => value - (before[i] as number))).toEqual([1, 2, 3]);
  });

  test("that race with the end are joined and notified, or answered from the cache, every time", async () => {
    let joins = 0;
    const races = volume(40, 200);
    const rounds = Array.from({ length: races }, (_, round) => `/race/${round}`);
    const caller = async () => {
      for (let path = rounds.pop(); path !== undefined; path = rounds.pop()) {
        const input = freshFlow();
        const answers: Promise<Answer>[] = [];
        const submit = () => {
          const i = answers.length;
          answers.push(send(tree, input, { webhook: { url: sink.url(`${path}/${i}`) } }, apiUrl(i)));
          return answers[i] as Promise<Answer>;
        };
        const first = (await submit()).body.id;
        const untilCached = () => eventually(async () => expect((await submit()).status).toBe(200));
        await Promise.all([untilCached(), untilCached()]);
        for (const [i, { body, status }] of (await Promise.all(answers)).entries()) {
          expect([status, body.cached]).toEqual(body.id === first ? [202, false] : [200, true]);
          if (status === 202 && i > 0) joins += 1;
          await eventually(() => expect(sink.at(`${path}/${i}`), `${path}/${i}`).toHaveLength(1));
          expect(sink.at(`${path}/${i}`)[0].data).toMatchObject({ id: body.id, status: "succeeded" });
        }
      }
    };
    await Promise.all([caller(), caller(), caller(), caller()]);
    expect(joins).toBeGreaterThan(races / 10);
  });
});
