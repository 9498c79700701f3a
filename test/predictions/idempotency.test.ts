import { randomInt } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { volume } from "../support/run/volume.js";
import { flow } from "../support/stack/flows.js";
import { type Answer, type CallOptions, TestStack } from "../support/stack/stack.js";

const model = "intrusion-decision-tree";
const path = `/v1/models/${model}/predictions`;

describe("an Idempotency-Key", () => {
  let stack: TestStack;
  let change = 0;
  const fresh = () => flow(++change * 7919);
  const send = (key: string, body: object, options: CallOptions = {}): Promise<Answer> =>
    stack.post(path, body, { ...options, headers: { ...options.headers, "idempotency-key": key } });
  const otherApi = () => ({ url: stack.apis[1]?.url as string });

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model], apis: 2 });
  });
  afterAll(() => stack.close());

  test("replays the first answer to the same body, quoted or bare, on any API", async () => {
    const body = { input: fresh(), cache: false, metadata: { a: 1 } };
    const first = await send("order-1", body);
    expect(first.status).toBe(202);
    expect(first.headers.get("idempotency-replayed")).toBeNull();
    for (const again of [
      await send("order-1", body),
      await send("order-1", body, otherApi()),
      await send('"order-1"', body),
      await send(' "order-1" ', body, otherApi()),
    ]) {
      expect(again.status).toBe(202);
      expect(again.body).toMatchObject({ id: first.body.id, metadata: { a: 1 } });
      expect(again.headers.get("idempotency-replayed")).toBe("true");
      expect(again.headers.get("location")).toBe(`/v1/predictions/${first.body.id}`);
    }
    await stack.final(first.body.id);
    expect((await send("order-1", body)).body).toMatchObject({ id: first.body.id, status: "succeeded", attempts: 1 });
  });

  test("in quotes may have escaped characters, and differs from the same key with backslashes", async () => {
    const body = { input: fresh(), cache: false };
    const first = await send('"a\\"b\\\\c"', body);
    expect((await send('a"b\\c', body)).body.id).toBe(first.body.id);
    expect((await send('a\\"b\\\\c', body)).body.id).not.toBe(first.body.id);
  });

  test("used with another body is refused with 422, and starts nothing", async () => {
    const body = { input: fresh(), cache: false };
    const first = await send("order-2", body);
    for (const other of [
      { ...body, input: fresh() },
      { ...body, priority: 3 },
      { ...body, metadata: { b: 2 } },
    ]) {
      const refused = await send("order-2", other, otherApi());
      expect(refused.status).toBe(422);
      expect(refused.headers.get("content-type")).toMatch(/^application\/problem\+json/);
      expect(refused.body).toMatchObject({ status: 422, code: "idempotency_mismatch" });
    }
    expect((await send("order-2", body)).body.id).toBe(first.body.id);
  });

  test("belongs to its owner", async () => {
    const body = { input: fresh(), cache: false };
    const alice = await send("shared-name", body);
    const bob = await send("shared-name", body, { as: "bob" });
    expect(bob.status).toBe(202);
    expect(bob.headers.get("idempotency-replayed")).toBeNull();
    expect(bob.body.id).not.toBe(alice.body.id);
    expect((await send("shared-name", { ...body, priority: 1 }, { as: "admin" })).status).toBe(202);
  });

  test("that is invalid is refused with 400", async () => {
    for (const key of ["", '""', '"open', '"a"b"', "é", "x".repeat(256), "a\tb"]) {
      const refused = await send(key, { input: fresh() });
      expect(refused.status, JSON.stringify(key)).toBe(400);
      expect(refused.body.code).toBe("bad_header");
    }
    expect((await send("x".repeat(255), { input: fresh() })).status).toBe(202);
  });

  test("of a refused body may be used again with a valid one", async () => {
    expect((await send("order-3", { input: "nonsense" })).status).toBe(422);
    expect((await send("order-3", { input: fresh(), cache: false })).status).toBe(202);
  });

  test("sent fifty times at once over two APIs makes one prediction", async () => {
    const body = { input: fresh(), cache: false, metadata: { at: "once" } };
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, i) => send("at-once", body, i % 2 === 0 ? {} : otherApi())),
    );
    const accepted = answers.filter(({ status }) => status === 202);
    for (const { status } of answers) expect([202, 409]).toContain(status);
    expect(new Set(accepted.map((answer) => answer.body.id)).size).toBe(1);
    expect(accepted.filter(({ headers }) => headers.get("idempotency-replayed") === null)).toHaveLength(1);
  });

  test("of an answer from the cache replays that answer", async () => {
    const input = fresh();
    const original = await send("warm", { input });
    await stack.final(original.body.id);
    const hit = await send("cold", { input });
    expect([hit.status, hit.body.cached]).toEqual([200, true]);
    const again = await send("cold", { input }, otherApi());
    expect(again.headers.get("idempotency-replayed")).toBe("true");
    expect(again.body).toEqual(hit.body);
    expect(again.status, "200: it was served from the cache").toBe(200);
  });

  test("with Prefer: wait replays with the result", async () => {
    const body = { input: fresh(), cache: false };
    const first = await send("waits", body);
    const again = await send("waits", body, { ...otherApi(), headers: { prefer: "wait=20" } });
    expect(again.status).toBe(200);
    expect(again.headers.get("preference-applied")).toBe("wait=20");
    expect(again.headers.get("idempotency-replayed")).toBe("true");
    expect(again.body).toMatchObject({ id: first.body.id, status: "succeeded" });
    expect(again.body.output.label).toBeTypeOf("string");
  });

  test("makes one prediction although the API is killed between accepting and answering", async () => {
    const perRound = 20;
    const rounds = volume(6, 20);
    let [answered, replayed, anew] = [0, 0, 0];
    let next = stack.startApi();
    for (let round = 0; round < rounds; round++) {
      const victim = await next;
      if (round < rounds - 1) next = stack.startApi();
      const bodies = Array.from({ length: perRound }, (_, i) => ({
        key: `round-${round}-${i}`,
        body: { input: fresh(), cache: false, metadata: { key: `round-${round}-${i}` } },
      }));
      const asBob = { as: "bob" } as const;
      const firsts = bodies.map(({ key, body }) => send(key, body, { ...asBob, url: victim.url }).catch(() => null));
      // Killed at a random moment, or after the first answer, while the other requests are in progress.
      await Promise.race([round % 2 === 0 ? delay(randomInt(5, 60)) : delay(2000), Promise.any(firsts)]);
      victim.child.kill("SIGKILL");
      await victim.exited;
      const firstAnswers = await Promise.all(firsts);
      const again = await Promise.all(bodies.map(({ key, body }) => send(key, body, asBob)));
      for (const [i, answer] of again.entries()) {
        expect(answer.status).toBe(202);
        const before = firstAnswers[i];
        if (before?.status === 202) expect(answer.body.id).toBe(before.body.id);
        const isReplay = answer.headers.get("idempotency-replayed") === "true";
        if (before?.status === 202) answered += 1;
        else if (isReplay) replayed += 1;
        else anew += 1;
      }
    }
    const found = new Map<string, number>();
    for (let cursor: string | null = ""; cursor !== null; ) {
      const page = await stack.get(`/v1/predictions?limit=100${cursor && `&cursor=${cursor}`}`, { as: "bob" });
      for (const { metadata } of page.body.data) found.set(metadata.key, (found.get(metadata.key) ?? 0) + 1);
      cursor = page.body.next_cursor;
    }
    const keys = [...found.keys()].filter((key) => key?.startsWith("round-"));
    expect(keys).toHaveLength(rounds * perRound);
    expect(keys.filter((key) => found.get(key) !== 1)).toEqual([]);
    // Each outcome must have occurred: answered, accepted without an answer, never accepted.
    expect(Math.min(answered, replayed, anew), JSON.stringify({ answered, replayed, anew })).toBeGreaterThan(0);
  });
});
