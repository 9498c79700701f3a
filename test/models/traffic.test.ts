import { cp } from "node:fs/promises";
import { getPriority } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { versionByWeight } from "@millrace/shared/models/traffic.js";
import { compareOutputs } from "@millrace/workers/versions/compare-outputs.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { scrape } from "../support/http/scrape.js";
import { childrenOf } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";

const model = "slow";
/** All take `x` int64 [N, 1]; test/fixtures/README.md describes each. */
const versions = { "2": "endless-on-one", "3": "throws-on-row", "4": "crashes-on-zero" };
const shadowNice = Math.min(19, getPriority() + 1);
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/models/${name}/1`, import.meta.url));

describe("splitting by weight", () => {
  const keys = Array.from({ length: 20_000 }, (_, i) => `key ${i}`);
  const split = (weights: Record<string, number>, candidates = ["1", "2", "10"]) =>
    keys.map((key) => versionByWeight(weights, candidates, () => key));
  const share = (chosen: (string | null)[], version: string) =>
    chosen.filter((other) => other === version).length / keys.length;

  test("gives each version its share, a key always the same version, and moves no more keys than necessary", () => {
    const before = split({ "1": 90, "2": 10 });
    // Five standard deviations of 20,000 draws.
    expect(Math.abs(share(before, "2") - 0.1)).toBeLessThan(5 * Math.sqrt((0.1 * 0.9) / keys.length));
    expect(split({ "1": 9, "2": 1 })).toEqual(before);
    const after = split({ "1": 80, "2": 20 });
    const moved = keys.filter((_, i) => before[i] !== after[i]);
    expect(Math.abs(moved.length / keys.length - 0.1)).toBeLessThan(5 * Math.sqrt((0.1 * 0.9) / keys.length));
    expect(before.filter((version, i) => version === "2" && after[i] !== "2")).toEqual([]);
  });

  test("ignores versions without weight and non-candidates, and needs no key if only one is left", () => {
    const noKey = () => {
      throw new Error("asked");
    };
    expect(versionByWeight({ "1": 0, "2": 3 }, ["1", "2"], noKey)).toBe("2");
    expect(versionByWeight({ "1": 5, "2": 3 }, ["2", "10"], noKey)).toBe("2");
    expect(versionByWeight({ "1": 5 }, ["2"], noKey)).toBeNull();
    expect(new Set(split({ "2": 1, "10": 1 }))).toEqual(new Set(["2", "10"]));
  });
});

describe("comparing outputs", () => {
  const compare = (a: unknown, b: unknown) => compareOutputs(JSON.stringify(a), JSON.stringify(b));

  test("labels and flags decide if there are any, else numbers within a tolerance", () => {
    const classified = (label: string, a: number) => ({ label, confidence: a, probabilities: { A: a, B: 1 - a } });
    expect(compare(classified("A", 0.9), classified("A", 0.75))).toEqual({
      agrees: true,
      difference: expect.closeTo(0.15),
    });
    expect(compare(classified("A", 0.5), classified("B", 0.5))).toEqual({ agrees: false, difference: 0 });
    expect(compare({ label: null, abstained: true }, { label: "A", abstained: false }).agrees).toBe(false);
    expect(compare({ value: 2000 }, { value: 2000.1 })).toEqual({ agrees: true, difference: expect.closeTo(0.1) });
    expect(compare({ value: 2 }, { value: 2.1 }).agrees).toBe(false);
    expect(compare({ y: [[1, 2]] }, { y: [[1, 2]] })).toEqual({ agrees: true, difference: 0 });
    expect(compare({ y: [[1, 2]] }, { y: [[1]] }).agrees).toBe(false);
    expect(compare({ y: [1] }, { z: [1] }).agrees).toBe(false);
    expect(compare({ y: [1] }, { y: ["NaN"] }).agrees).toBe(false);
  });
});

describe("traffic between versions", () => {
  let stack: TestStack;
  const admin = { as: "admin" } as const;
  const put = (json: unknown, options: object = admin) =>
    stack.call("PUT", `/v1/models/${model}/traffic`, { json, ...options });
  const rollback = (json: unknown = {}) => stack.post(`/v1/models/${model}/rollback`, json, admin);
  const describeModel = async () => (await stack.get(`/v1/models/${model}`)).body;
  const predict = (x: number, options: object = {}) => stack.predict(model, { x: [[x]] }, {}, options);
  const api = (i: number) => ({ url: stack.apis[i % 2]?.url as string });

  beforeAll(async () => {
    stack = await TestStack.start({
      models: [model],
      manifests: { [model]: { kind: "tensor", timeout_ms: 8000 } },
      workers: 0,
      apis: 2,
      // At the product's priority, shadows get no processor time on a busy machine.
      timing: { worker: { shadowNice } },
    });
    for (const [version, name] of Object.entries(versions)) {
      await cp(fixture(name), join(stack.modelsDir, model, version), { recursive: true });
    }
    await stack.startWorker();
  });
  afterAll(() => stack.close());

  test("is changed by admins only, and every fault is reported by its pointer", async () => {
    assertProblem(await put({ weights: { "1": 1 } }, {}), 403, "forbidden");
    const wrong = { weights: { "1": -1, "9": 1 }, shadow: ["2", "2"], more: 1 };
    expect(pointersOf(assertProblem(await put(wrong), 422, "invalid_request")).sort()).toEqual([
      "/more",
      "/shadow",
      "/weights/1",
    ]);
    expect(
      pointersOf(assertProblem(await put({ weights: { "9": 1 }, shadow: ["8"] }), 422, "invalid_request")),
    ).toEqual(["/shadow/0", "/weights/9"]);
    assertProblem(await put({ weights: { "1": 0 } }), 422, "invalid_request");
    assertProblem(await put({ shadow: [] }), 422, "invalid_request");
    const unknown = await stack.call("PUT", "/v1/models/nobody/traffic", { json: { weights: { "1": 1 } }, ...admin });
    assertProblem(unknown, 404, "model_not_found");
  });

  test("follows the weights on every API, sticky by input and by Idempotency-Key", async () => {
    const { body } = await put({ weights: { "1": 90, "3": 10 } });
    expect(body).toMatchObject({ automatic: false, weights: { "1": 90, "3": 10 }, shares: { "1": 0.9, "3": 0.1 } });
    await eventually(async () => {
      for (const i of [0, 1]) {
        const { body: seen } = await stack.get(`/v1/models/${model}`, api(i));
        expect(seen.traffic.revision).toBe(body.revision);
      }
    });
    const chosen = await Promise.all(
      Array.from({ length: 300 }, async (_, i) => {
        const headers = { "idempotency-key": `caller-${i}` };
        const input = { input: { x: [[i % 10]] }, cache: false };
        const answers = await Promise.all(
          [0, 1].map((j) => stack.post(`/v1/models/${model}/predictions`, input, { headers, ...api(j) })),
        );
        // Concurrent: the second is told that the first is still being accepted, or gets the same prediction.
        return answers.filter(({ status }) => status === 202).map((answer) => answer.body.version);
      }),
    );
    const picks = chosen.map(([version]) => version);
    for (const versionsOfOne of chosen) expect(new Set(versionsOfOne).size).toBe(1);
    const tenth = picks.filter((version) => version === "3").length;
    // 30 expected; five standard deviations are 26.
    expect(tenth).toBeGreaterThan(4);
    expect(tenth).toBeLessThan(56);
    const again = await Promise.all(Array.from({ length: 20 }, (_, i) => predict(5, api(i))));
    expect(new Set(again.map((answer) => answer.body.version)).size).toBe(1);
    const named = await stack.predict(model, { x: [[5]] }, { version: "4" });
    expect(named.body).toMatchObject({ version: "4", output: { y: [[200]] } });
  });

  test("goes back one change with each rollback, and only from the given revision", async () => {
    const { revision } = (await put({ weights: { "3": 1 } })).body;
    expect((await predict(2)).body).toMatchObject({ version: "3", output: { y: [[3]] } });
    assertProblem(await rollback({ revision: revision - 1 }), 409, "state_conflict");
    expect((await rollback({ revision })).body).toMatchObject({
      weights: { "1": 90, "3": 10 },
      revision: revision + 1,
    });
    assertProblem(await rollback({ revision }), 409, "state_conflict");
    // Before that the split was automatic: the highest version takes all traffic.
    expect((await rollback()).body).toMatchObject({ automatic: true, shares: { "4": 1 } });
    assertProblem(await stack.post(`/v1/models/${model}/rollback`, {}), 403, "forbidden");
  });

  test("applies to batches too, each of which runs on one version", async () => {
    await put({ weights: { "3": 1 } });
    const inputs = [1, 2, 4].map((x) => ({ x: [[x]] }));
    const { body, status } = await stack.post(`/v1/models/${model}/batches`, { inputs });
    expect([status, body.version]).toEqual([202, "3"]);
    const final = await stack.get(`/v1/batches/${body.id}?wait=30`);
    expect(final.body).toMatchObject({ status: "succeeded", version: "3", counts: { total: 3, succeeded: 3 } });
    await rollback();
  });

  test("a shadow that hangs, throws, crashes or differs never affects the caller, and is counted", async () => {
    const worker = stack.workers[0] as TestStack["workers"][number];
    const slots = await childrenOf(worker.pid);
    await put({ weights: { "1": 1 }, shadow: Object.keys(versions) });
    // The shadows have a process of their own, and the caller's slot is unchanged.
    await eventually(async () => {
      const processes = await childrenOf(worker.pid);
      expect(processes).toHaveLength(2);
      expect(processes.map((pid) => getPriority(pid)).sort((a, b) => a - b)).toEqual([getPriority(), shadowNice]);
      await predict(4);
      expect((await describeModel()).shadows).toHaveLength(3);
    }, 40_000);
    type Counts = Record<"agree" | "differ" | "failed" | "dropped", number>;
    const runsOf = ({ agree, differ, dropped, failed }: Counts) => agree + differ + failed + dropped;
    const url = `http://127.0.0.1:${worker.port}`;
    // From now on each prediction runs in each shadow: all are loaded, though not at the same time.
    const before: number[] = await eventually(async () => {
      const runs: number[] = (await describeModel()).shadows.map(runsOf);
      const told = await scrape(url, "ml_shadow_total");
      expect([runs.length, runs.reduce((sum, count) => sum + count, 0)]).toEqual([3, told]);
      return runs;
    });
    // 1 hangs in one shadow, 77 throws in another, 0 crashes the third on x86.
    const inputs = [1, 77, 0, 2, 3, 4, 5, 6, 7, 8];
    for (const x of inputs) {
      const { body } = await predict(x);
      expect(body).toMatchObject({ status: "succeeded", version: "1", output: { y: [[x]] }, attempts: 1 });
    }
    // All were answered while the shadow still hung, whose timeout is 8 s.
    const counted = (shadows: { shadow: string; failed: number }[], shadow: string) =>
      shadows.find((entry) => entry.shadow === shadow) as never as Record<string, number>;
    const meanwhile = (await describeModel()).shadows;
    expect(counted(meanwhile, "2").failed).toBe(0);
    const shadows = await eventually(async () => {
      const { shadows } = await describeModel();
      // An earlier prediction may still have been running at the first count.
      for (const [i, runs] of shadows.map(runsOf).entries()) {
        expect(runs).toBeGreaterThanOrEqual((before[i] as number) + inputs.length);
      }
      return shadows;
    }, 60_000);
    expect(counted(shadows, "2")).toMatchObject({
      version: "1",
      failed: 1,
      differ: 0,
      agreement: 1,
      score_difference: 0,
    });
    expect(counted(shadows, "3").failed).toBe(1);
    expect(counted(shadows, "3").differ).toBeGreaterThan(0);
    expect(counted(shadows, "3").score_difference).toBeGreaterThan(1);
    if (process.arch === "x64") expect(counted(shadows, "4").failed).toBe(1);
    expect(await scrape(url, "ml_shadow_total", { model, shadow: "2", outcome: "failed" })).toBe(1);
    expect(await scrape(url, "ml_shadow_score_difference_count", { model, shadow: "3" })).toBeGreaterThan(5);
    expect(await scrape(url, "ml_slot_death_total")).toBe(0);
    expect(await childrenOf(worker.pid)).toEqual(expect.arrayContaining(slots));
  }, 120_000);

  test("without shadows their process ends, which frees its memory", async () => {
    const worker = stack.workers[0] as TestStack["workers"][number];
    await put({ weights: { "1": 1 } });
    await eventually(async () => expect(await childrenOf(worker.pid)).toHaveLength(1));
  });
});
