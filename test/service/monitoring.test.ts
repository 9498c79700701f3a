import { binOf, driftBaselineSchema, populationStabilityIndex } from "@millrace/shared/models/drift.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { scrape } from "../support/http/scrape.js";
import { flow, manifestOf } from "../support/stack/flows.js";
import { keys, TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const table = "echo-float32";
const thirds = { edges: [1, 2], shares: [0.25, 0.5, 0.25] };

describe("the population stability index", () => {
  test("is 0 for equal distributions, as computed by hand for others, and finite for an empty bin", () => {
    expect(populationStabilityIndex([0.25, 0.5, 0.25], [25, 50, 25])).toBeCloseTo(0, 12);
    // (0.5 - 0.25) ln 2 + (0.25 - 0.5) ln 0.5
    expect(populationStabilityIndex([0.25, 0.5, 0.25], [50, 25, 25])).toBeCloseTo(0.5 * Math.LN2, 12);
    expect(populationStabilityIndex([1, 0], [0, 100])).toBeCloseTo(2 * 0.9999 * Math.log(1e4), 6);
  });

  test("counts a value in the bin whose upper end it does not exceed", () => {
    const { edges } = thirds;
    expect([-9, 1, 1.5, 2, 2.1, Number.NaN].map((value) => binOf(edges, value))).toEqual([0, 0, 1, 1, 2, 2]);
  });

  test("accepts a baseline only if its bins ascend and its shares add up", () => {
    const faults = (edges: number[], shares: number[]) =>
      driftBaselineSchema.safeParse({ a: { edges, shares } }).success;
    expect([faults([1, 2], [0.2, 0.3, 0.5]), faults([2, 1], [0.2, 0.3, 0.5])]).toEqual([true, false]);
    expect([faults([1], [0.2, 0.3, 0.5]), faults([1], [0.2, 0.3])]).toEqual([false, false]);
  });
});

describe("monitoring", () => {
  let stack: TestStack;
  const asAdmin = { as: "admin" } as const;
  const api = (i: number) => ({ url: stack.apis[i % 2]?.url as string });
  const statistics = async (options: object = asAdmin) => (await stack.get("/monitoring/statistics", options)).body;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: [tree, table, "throws-on-row"],
      manifests: {
        [table]: {
          kind: "tabular",
          input: { tensor: "x", features: ["steady", "moved", "unwatched"] },
          drift_baseline: { steady: thirds, moved: thirds },
        },
      },
      apis: 2,
      workers: 2,
    });
  });
  afterAll(() => stack.close());

  test("counts all ends, on any worker and by any cause, and reports the same on every API", async () => {
    await Promise.all(Array.from({ length: 30 }, (_, i) => stack.predict(tree, flow(1000 + i), {}, api(i))));
    await Promise.all(Array.from({ length: 5 }, (_, i) => stack.predict(tree, flow(2000 + i), {}, { as: "bob" })));
    await Promise.all([77, 78, 79].map((x) => stack.predict("throws-on-row", { x: [[x]] })));
    await stack.predict("throws-on-row", { x: [[2]] });
    const { id } = await stack.submit(tree, flow(1), { delay_ms: 600_000 });
    await stack.post(`/v1/predictions/${id}/cancel`, {});
    const overdue = await stack.submit(tree, flow(2), { delay_ms: 1, expires_in_ms: 2 });
    const expires = (await stack.final(overdue.id)).status === "expired" ? 1 : 0;
    const cached = manifestOf(tree).samples[0].input;
    for (let i = 0; i < 4; i++) await stack.predict(tree, cached, { cache: true }, api(i));

    const all = await eventually(async () => {
      const body = await statistics();
      expect(body.models[tree].versions["1"].counts).toEqual({
        ...{ succeeded: 37 - expires, failed: 0, canceled: 1, expired: expires },
      });
      expect(body.models[tree].versions["1"].cache).toEqual({ hits: 3, joins: 0, misses: 1 });
      expect(body.models["throws-on-row"].versions["1"].counts).toMatchObject({ succeeded: 1, failed: 3 });
      return body;
    });
    expect(await statistics({ ...asAdmin, ...api(1) })).toEqual(all);
    const { confidence, error_rate, hit_rate, latency_ms } = all.models[tree].versions["1"];
    expect([all.of, all.window_seconds, error_rate]).toEqual(["all", 86_400, 0]);
    expect(all.models["throws-on-row"].versions["1"].error_rate).toBe(0.75);
    expect(hit_rate).toBe(0.75);
    for (const stage of ["queue", "inference", "total"]) {
      const { p50, p95, p99 } = latency_ms[stage];
      expect(p50).toBeGreaterThan(0);
      expect(p95).toBeGreaterThanOrEqual(p50);
      expect(p99).toBeGreaterThanOrEqual(p95);
    }
    expect(latency_ms.total.p50).toBeGreaterThanOrEqual(latency_ms.inference.p50);
    for (const value of Object.values(confidence)) expect(value).toBeGreaterThan(0);
    // The sum over both workers.
    const parts = stack.workers.map(({ port }) =>
      scrape(`http://127.0.0.1:${port}`, "ml_prediction_total", { model: tree, status: "succeeded" }),
    );
    expect((await Promise.all(parts)).reduce((sum, part) => sum + part, 0)).toBe(37 - expires);
    const count = (metric: string) =>
      Promise.all(stack.apis.map(({ url }) => scrape(url, metric, { model: tree, version: "1" })));
    expect((await count("ml_model_cache_hits_total")).reduce((a, b) => a + b)).toBe(3);
    expect((await count("ml_model_cache_misses_total")).reduce((a, b) => a + b)).toBe(1);
  });

  test("shows callers their own figures only, and nothing without a key", async () => {
    const bob = await statistics({ as: "bob" });
    expect(bob.of).toBe("bob");
    expect(bob.models[tree].versions["1"]).toMatchObject({
      counts: { succeeded: 5, failed: 0, canceled: 0, expired: 0 },
      cache: { hits: 0, misses: 0 },
      hit_rate: null,
    });
    expect(bob.models["throws-on-row"].versions["1"]).toMatchObject({ counts: { failed: 0 }, error_rate: null });
    for (const path of ["/monitoring/health", "/monitoring/statistics"]) {
      assertProblem(await stack.get(path, { as: null }), 401, "unauthenticated");
      expect(JSON.stringify((await stack.get(path, asAdmin)).body)).not.toContain(keys.bob);
    }
  });

  test("reports the health of each model and the cache", async () => {
    const { body } = await stack.get("/monitoring/health");
    expect(Object.keys(body.models).sort()).toEqual([table, tree, "throws-on-row"].sort());
    expect(body).toMatchObject({
      status: "ok",
      models: { [tree]: { status: "ok", error_rate: 0, workers: 2 }, "throws-on-row": { error_rate: 0.75 } },
      cache: { prediction_cache: { size: 1, hits: 3, misses: 1, hit_rate: 0.75 } },
      circuit_breakers: { [tree]: { 1: { state: "closed", workers: 0, retry_at: null } } },
    });
    expect(Object.keys(body.circuit_breakers)).toEqual(Object.keys(body.models));
    expect(body.models[tree].avg_latency).toBeGreaterThan(0);
    expect(body.models[tree].avg_latency).toBeLessThan(30);
  });

  test("reports drift of inputs, over all workers, as a metric and in the statistics", async () => {
    const inputs = Array.from({ length: 240 }, (_, i) => [[0, 1.5, 1.5, 3][i % 4] as number, 3, i]);
    const [few, rest] = [inputs.slice(0, 100), inputs.slice(100)];
    const send = (some: number[][]) => Promise.all(some.map((input, i) => stack.predict(table, input, {}, api(i))));
    const driftOf = async () => (await statistics()).models[table].versions["1"].drift;
    await send(few);
    await eventually(async () => expect(await driftOf()).toEqual({ window_seconds: 21_600, inputs: 100, psi: null }));
    await send(rest);
    const { psi } = await eventually(async () => {
      const drift = await driftOf();
      expect(drift.inputs).toBe(240);
      return drift;
    });
    expect(Object.keys(psi)).toEqual(["steady", "moved"]);
    expect(psi.steady).toBeCloseTo(0, 6);
    expect(psi.moved).toBeGreaterThan(1);
    for (const { url } of stack.apis) {
      const labels = { model: table, version: "1" };
      expect(await scrape(url, "ml_input_drift_psi", { ...labels, feature: "moved" })).toBeCloseTo(psi.moved, 6);
      expect(await scrape(url, "ml_input_drift_psi", { ...labels, feature: "steady" })).toBeCloseTo(0, 6);
    }
    expect((await statistics()).models[tree].versions["1"].drift).toBeNull();
  });

  test("keeps counts of stopped workers, and reports degraded health without workers", async () => {
    const before = await statistics();
    await Promise.all(stack.workers.map((worker) => worker.stop()));
    expect((await statistics()).models[tree]).toEqual(before.models[tree]);
    const health = await eventually(async () => {
      const { body } = await stack.get("/monitoring/health");
      expect(body.models[tree]).toMatchObject({ status: "unavailable", workers: 0 });
      return body;
    });
    expect(health.status).toBe("degraded");
  });
});
