import { decodeResult } from "@millrace/shared/predictions/prediction.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { failuresOf, failing as model } from "../support/failures.js";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { scrape } from "../support/http/scrape.js";
import { volume } from "../support/run/volume.js";
import { type Owner, TestStack } from "../support/stack/stack.js";

const late = "slow";

describe("failures and redrives", () => {
  let stack: TestStack;
  const { ended, fail, failures, redrive, retriesOf } = failuresOf(() => stack);

  beforeAll(async () => {
    stack = await TestStack.start({
      models: [model, late, "echo-int32"],
      // The sample shows the breaker that the inputs cause the timeouts, not the version.
      manifests: { [late]: { kind: "tensor", timeout_ms: 1000, attempts: 1, samples: [{ input: { x: [[1]] } }] } },
      apis: 2,
      slots: 2,
    });
  });
  afterAll(() => stack.close());

  test("are grouped by model and code, of one owner, newest first, without other predictions", async () => {
    const own = await fail(7);
    const bobs = await fail(3, "bob");
    await stack.predict("echo-int32", { x: [[1, 2, 3]] });
    const canceled = await stack.submit(late, { x: [[1]] }, { delay_ms: 60_000 });
    await stack.call("POST", `/v1/predictions/${canceled.id}/cancel`);
    const expired = await stack.submit(late, { x: [[1]] }, { delay_ms: 1, expires_in_ms: 2 });
    expect((await stack.final(expired.id)).status).toMatch(/expired|succeeded/);
    const tooLate = (await stack.predict(late, { x: [[6000]] })).body;
    expect(tooLate.error.code).toBe("timeout");

    const shown = await failures();
    const ends = await Promise.all(own.map((id) => stack.final(id)));
    const times = ends.map(({ finished_at: at }) => at as string).sort();
    expect(shown).toEqual([
      {
        object: "failure_group",
        model: late,
        code: "timeout",
        count: 1,
        first_failed_at: expect.any(String),
        last_failed_at: expect.any(String),
        examples: [tooLate.id],
      },
      {
        object: "failure_group",
        model,
        code: "inference_failed",
        count: 7,
        first_failed_at: expect.any(String),
        last_failed_at: expect.any(String),
        examples: expect.any(Array),
      },
    ]);
    const [, group] = shown;
    // Groups have the time of the step in Redis, shortly after `finished_at` of the predictions.
    expect(group.last_failed_at <= tooLate.created_at).toBe(true);
    expect(group.first_failed_at >= (times[0] as string)).toBe(true);
    expect(group.last_failed_at >= (times.at(-1) as string)).toBe(true);
    expect(group.examples).toHaveLength(5);
    expect(own).toEqual(expect.arrayContaining(group.examples));
    expect(shown).toEqual(await failures("", { url: stack.apis[1]?.url as string }));
    const [ofBob, ...rest] = await failures("", { as: "bob" });
    expect([ofBob.count, [...ofBob.examples].sort(), rest]).toEqual([3, [...bobs].sort(), []]);
    for (const as of ["admin", "reader"] as const) expect(await failures("", { as })).toEqual([]);
    expect(await failures(`model=${late}`)).toEqual([shown[0]]);
    expect(await failures("code=inference_failed")).toEqual([shown[1]]);
    expect(await failures(`model=${late}&code=inference_failed`)).toEqual([]);
  });

  test("no longer include a prediction that was retried by hand, nor is it redriven", async () => {
    const [id = ""] = await fail(1, "admin");
    const retried = (await stack.call("POST", `/v1/predictions/${id}/retry`, { as: "admin" })).body;
    await stack.final(retried.id, { as: "admin" });
    expect(await failures("", { as: "admin" })).toMatchObject([{ count: 1, examples: [retried.id] }]);
    const { counts } = await ended((await redrive({ model }, { as: "admin" })).id, { as: "admin" });
    expect(counts).toMatchObject({ total: 1, redriven: 1, skipped: 0 });
    expect(await retriesOf([id], "admin")).toHaveLength(1);
    // Retries by hand are not limited.
    expect((await stack.call("POST", `/v1/predictions/${id}/retry`, { as: "admin" })).status).toBe(202);
  });

  test("are each redriven once by two concurrent redrives of the same failures", async () => {
    const count = volume(200, 1000);
    const before = (await failures(`model=${model}`))[0].count;
    const ids = await fail(count - before, "alice", { metadata: { batch: 7 } });
    await eventually(async () => expect((await failures(`model=${model}`))[0].count).toBe(count));
    const bobs = await failures("", { as: "bob" });
    // Otherwise retries of the first redrive that fail again would be redriven by the second.
    const filter = { model, code: "inference_failed", failed_before: new Date(Date.now() + 1).toISOString() };
    const made = await Promise.all(stack.apis.map(({ url }) => redrive({ ...filter, rate: 1000 }, { url })));
    const ends = await Promise.all(made.map(({ id }) => ended(id)));
    for (const end of ends) {
      expect(end).toMatchObject({ status: "succeeded", counts: { canceled: 0, pending: 0 } });
      expect(end.counts.redriven + end.counts.skipped).toBe(end.counts.total);
    }
    expect(ends[0].counts.redriven + ends[1].counts.redriven).toBe(count);
    const retries = await retriesOf(ids);
    expect(new Set(retries.map(({ retry_of: of }) => of)).size).toBe(ids.length);
    expect(retries).toHaveLength(ids.length);
    for (const { metadata } of retries) expect(metadata).toEqual({ batch: 7 });
    expect(await failures("", { as: "bob" })).toEqual(bobs);
    // Retries that failed again are failures again, under their new ids.
    const again = new Set(retries.map(({ id }) => id));
    await eventually(async () => expect((await failures(`model=${model}`))[0].count).toBe(count));
    for (const id of (await failures(`model=${model}`))[0].examples) expect(ids).not.toContain(id);
    expect(again.size).toBe(ids.length);
    const [worker] = stack.workers as [TestStack["workers"][number]];
    const counted = await scrape(`http://127.0.0.1:${worker.port}`, "ml_prediction_redriven_total", { model });
    expect(counted).toBeGreaterThanOrEqual(count);
  }, 120_000);

  test("of all models can be redriven at a rate, between two times, and with large inputs", async () => {
    const options = { as: "reader" as Owner };
    const key = await madeKey({ owner: "carol", scopes: ["predict"] });
    const carol = { as: null, headers: { authorization: `Bearer ${key}` } };
    const large = { x: Array.from({ length: 5000 }, () => [99]) };
    const early = (await stack.predict(model, { x: [[99]] }, {}, carol)).body;
    const middle = await Promise.all(
      Array.from({ length: 28 }, (_, i) => stack.predict(model, i === 0 ? large : { x: [[99]] }, {}, carol)),
    );
    const slow = (await stack.predict(late, { x: [[6000]] }, {}, carol)).body;
    const ids = [slow.id, ...middle.map(({ body }) => body.id)];
    const [{ last_failed_at: after }] = await failures("code=timeout", carol);
    // Filters compare the time of the step in Redis; the early failure was written before all others.
    const first = (await failures("code=inference_failed", carol))[0].first_failed_at;
    const before = new Date(Date.parse(after) + 1).toISOString();
    const made = await redrive({ rate: 20, failed_after: first, failed_before: before }, carol);
    expect(made).toMatchObject({
      rate: 20,
      filter: { model: null, code: null, failed_after: first, failed_before: before },
      counts: { total: ids.length, pending: ids.length },
    });
    const end = await ended(made.id, carol);
    expect(end.counts).toEqual({ total: ids.length, redriven: ids.length, skipped: 0, canceled: 0, pending: 0 });
    const list = async (of: string) => (await stack.get(`/v1/predictions?model=${of}&limit=100`, carol)).body.data;
    const retries = [...(await list(model)), ...(await list(late))].filter(({ retry_of: of }) => of !== null);
    expect(retries.map(({ retry_of: of }) => of).sort()).toEqual([...ids].sort());
    expect(ids).not.toContain(early.id);
    const times = retries.map(({ created_at: at }) => Date.parse(at)).sort((a, b) => a - b);
    expect((times.at(-1) as number) - (times[0] as number)).toBeGreaterThan(1000);

    const ofLarge = retries.find(({ retry_of: of }) => of === middle[0]?.body.id);
    const again = await stack.get(`/v1/predictions/${ofLarge.id}?wait=20`, carol);
    expect(again.body.error.code).toBe("inference_failed");
    const keys = modelKeys(stack.prefix, model);
    const kept = async (id: string) => decodeResult((await stack.redis.get(keys.result(id))) as string).inputBytes;
    expect(await kept(ofLarge.id)).toBe(await kept(middle[0]?.body.id));

    expect((await stack.get("/v1/failures/redrives", carol)).body.data).toEqual([end]);
    expect((await stack.get("/v1/failures/redrives", options)).body.data).toEqual([]);
  });

  test("stay failures if their redrive is canceled before them; another owner's redrive is unknown", async () => {
    const count = (await failures(`model=${model}`))[0].count;
    const { id } = await redrive({ model, rate: 2 });
    await eventually(async () => {
      expect((await stack.get(`/v1/failures/redrives/${id}`)).body).toMatchObject({ status: "running" });
    });
    for (const method of ["GET", "POST"]) {
      const path = `/v1/failures/redrives/${id}${method === "POST" ? "/cancel" : ""}`;
      assertProblem(await stack.call(method, path, { as: "bob" }), 404, "redrive_not_found");
      assertProblem(await stack.call(method, path, { as: null }), 401, "unauthenticated");
    }
    expect((await stack.call("POST", `/v1/failures/redrives/${id}/cancel`, { as: "reader" })).status).toBe(403);
    const waiting = stack.get(`/v1/failures/redrives/${id}?wait=30`, { url: stack.apis[1]?.url as string });
    const canceled = await stack.call("POST", `/v1/failures/redrives/${id}/cancel`);
    expect(canceled.body).toMatchObject({ id, status: "canceled", counts: { total: count, pending: 0 } });
    expect(canceled.body.finished_at).not.toBeNull();
    expect((await waiting).body.status).toBe("canceled");
    assertProblem(await stack.call("POST", `/v1/failures/redrives/${id}/cancel`), 409, "state_conflict");
    const { counts } = (await stack.get(`/v1/failures/redrives/${id}`)).body;
    expect(counts.redriven + counts.canceled).toBe(count);
    expect(counts.canceled).toBeGreaterThan(count / 2);
  });

  test("are limited to ten concurrent redrives for each owner, who cannot take all places", async () => {
    // Each would run for hours.
    const made = await Promise.all(Array.from({ length: 10 }, () => redrive({ rate: 0.01 })));
    assertProblem(await stack.post("/v1/failures/redrive", {}), 409, "state_conflict");
    expect((await stack.get("/v1/failures/redrives")).body.data.length).toBeGreaterThan(10);
    for (const { id } of made) await stack.call("POST", `/v1/failures/redrives/${id}/cancel`);
    const { id } = await redrive({ code: "version_gone" });
    expect(await ended(id)).toMatchObject({ status: "succeeded", counts: { total: 0, redriven: 0 } });
  });

  test("are visible to and redriven by a key bound to models for these models only", async () => {
    await stack.predict(late, { x: [[6000]] }, {}, { as: "bob" });
    const key = await madeKey({ owner: "bob", scopes: [`predict@${model}`] });
    const bound = { as: null, headers: { authorization: `Bearer ${key}` } };
    expect((await failures("", bound)).map(({ model: of }: { model: string }) => of)).toEqual([model]);
    expect(await failures(`model=${late}`, bound)).toEqual([]);
    assertProblem(await stack.post("/v1/failures/redrive", { model: late }, bound), 403, "forbidden");
    const free = await redrive({ code: "timeout" }, { as: "bob" });
    assertProblem(await stack.get(`/v1/failures/redrives/${free.id}`, bound), 404, "redrive_not_found");
    await ended(free.id, { as: "bob" });
    const again = await eventually(async () => {
      const groups = await failures(`model=${late}`, { as: "bob" });
      expect(groups).toHaveLength(1);
      return groups;
    });
    await ended((await redrive({}, bound)).id, bound);
    expect(await failures(`model=${late}`, { as: "bob" })).toEqual(again);
  });

  test("no longer count once their results have expired", async () => {
    const key = modelKeys(stack.prefix, model).failures("admin", "inference_failed");
    await stack.redis.del(key);
    const ids = await fail(4, "admin");
    expect(await failures("", { as: "admin" })).toMatchObject([{ count: 4 }]);
    // Sets the time of two of them to a result time ago.
    const dayAgo = Date.now() - 86_400_000;
    for (const id of ids.slice(0, 2)) await stack.redis.zadd(key, dayAgo, id);
    const [group] = await failures("", { as: "admin" });
    expect([group.count, [...group.examples].sort()]).toEqual([2, ids.slice(2).sort()]);
    expect(Date.parse(group.first_failed_at)).toBeGreaterThan(dayAgo + 1000);
    for (const id of ids) await stack.redis.zadd(key, dayAgo, id);
    expect(await failures("", { as: "admin" })).toEqual([]);
    expect(await redrive({}, { as: "admin" })).toMatchObject({ counts: { total: 0 } });
  });

  test("cannot be filtered by invalid values, which are each refused by name", async () => {
    for (const query of ["code=", "code=done", "code=timeout&code=timeout", "owner=bob", "limit=1"]) {
      assertProblem(await stack.get(`/v1/failures?${query}`), 400, "bad_query");
    }
    assertProblem(await stack.get("/v1/failures?model=nobody"), 404, "model_not_found");
    assertProblem(await stack.post("/v1/failures/redrive", { model: "nobody" }), 404, "model_not_found");
    const bad = {
      model: 7,
      code: "done",
      failed_after: "yesterday",
      failed_before: 5,
      rate: 0,
      owner: "bob",
    };
    const problem = assertProblem(await stack.post("/v1/failures/redrive", bad), 422, "invalid_request");
    expect(pointersOf(problem)).toEqual(
      Object.keys(bad)
        .map((name) => `/${name}`)
        .sort(),
    );
    const times = { failed_after: "2026-01-01T00:00:00Z", failed_before: "2025-12-31T23:59:59.999Z" };
    for (const [body, pointer] of [
      [{ rate: 1001 }, "/rate"],
      [{ rate: "1" }, "/rate"],
      [times, "/failed_before"],
      [{ failed_after: "2026-02-30T00:00:00Z" }, "/failed_after"],
    ] as const) {
      const answer = await stack.post("/v1/failures/redrive", body);
      expect(pointersOf(assertProblem(answer, 422, "invalid_request"))).toEqual([pointer]);
    }
    expect((await stack.call("POST", "/v1/failures/redrive", { text: "{}" })).status).toBe(415);
    expect((await stack.post("/v1/failures/redrive", {}, { as: "reader" })).status).toBe(403);
    for (const path of ["/v1/failures", "/v1/failures/redrives"]) {
      expect((await stack.get(path, { as: null })).status).toBe(401);
    }
  });

  test("have their redrive queue on the queue page", async () => {
    const { body } = await stack.get("/admin/queues/api/queues", { as: "admin" });
    expect(body.queues.map(({ name }: { name: string }) => name)).toContain("~redrives");
  });

  /** Creates a key and waits until the API knows it. */
  const madeKey = async (json: object): Promise<string> => {
    const { key } = (await stack.post("/admin/keys", json, { as: "admin" })).body;
    const options = { as: null, headers: { authorization: `Bearer ${key}` } };
    await eventually(async () => expect((await stack.get("/v1/predictions", options)).status).toBe(200));
    return key;
  };
});
