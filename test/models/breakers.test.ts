import { cp, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { breakerOf, type WorkerBreaker } from "@millrace/shared/models/breaker.js";
import { openLog } from "@millrace/shared/service/log.js";
import { Breaker, type BreakerState, type Death } from "@millrace/workers/jobs/job-breaker.js";
import type { Outcome } from "@millrace/workers/runs/work.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { scrape } from "../support/http/scrape.js";
import { type Answer, type CallOptions, type Owner, TestStack } from "../support/stack/stack.js";

const log = openLog("worker", "silent" as never);

describe("a breaker", () => {
  /** A breaker with the given outcomes of its sample runs, and the states that it reported. */
  function breakerWithSample(sample: Outcome["kind"][] | null) {
    const states: BreakerState["state"][] = [];
    const openMs: number[] = [];
    let sampleRuns = 0;
    const trySample = sample === null ? null : async () => sample[Math.min(sampleRuns++, sample.length - 1)] as "done";
    const onChange = ({ retryAt, state }: BreakerState) => {
      states.push(state);
      if (state === "open") openMs.push(retryAt);
    };
    const breaker = new Breaker({ trySample, onChange, log, openMs: 20, clock: { now: () => 0 } });
    let next = 0;
    const death = (owner: string, rest: Partial<Death> = {}) =>
      breaker.recordDeath({ id: `${++next}`, owner, last: false, ...rest });
    return { breaker, states, openMs, death, sampleRuns: () => sampleRuns };
  }

  test("with a sample opens only if the sample's run dies too, whichever owners' jobs died before", async () => {
    const healthy = breakerWithSample(["done"]);
    const blamed: boolean[] = [];
    for (let i = 0; i < 30; i++) blamed.push(await healthy.death(i % 2 === 0 ? "alice" : "bob"));
    expect([healthy.states, new Set(blamed), healthy.sampleRuns()]).toEqual([[], new Set([true]), 10]);

    const failing = breakerWithSample(["blamed", "done"]);
    expect([await failing.death("alice"), await failing.death("alice"), await failing.death("alice")]).toEqual([
      true,
      true,
      false,
    ]);
    expect([failing.states, failing.breaker.room, failing.breaker.admit("x")]).toEqual([["open"], 0, "wait"]);
    await eventually(() => expect(failing.states).toEqual(["open", "half_open", "closed"]));
    expect(failing.breaker.admit("x")).toBe("run");
  });

  test("runs the sample before a job fails for good, once for all jobs that die meanwhile", async () => {
    const failing = breakerWithSample(["blamed"]);
    const pays = await Promise.all(Array.from({ length: 5 }, () => failing.death("alice", { last: true })));
    expect([pays, failing.sampleRuns(), failing.states]).toEqual([pays.map(() => false), 1, ["open"]]);
    failing.breaker.close();
  });

  test("opens for longer each time the probe dies, and for the initial time again after it was closed", async () => {
    const failing = breakerWithSample(["blamed", "blamed", "blamed", "done", "blamed"]);
    await failing.death("alice", { last: true });
    await eventually(() => expect(failing.states.at(-1)).toBe("closed"));
    await failing.death("alice", { last: true });
    expect(failing.states).toEqual(["open", "half_open", "open", "half_open", "open", "half_open", "closed", "open"]);
    expect(failing.openMs).toEqual([20, 40, 80, 20]);
    failing.breaker.close();
  });

  test("without a sample never opens for jobs of one owner, even if a few jobs of others die", async () => {
    const { breaker, death, states } = breakerWithSample(null);
    for (let i = 0; i < 100; i++) expect(await death("alice")).toBe(true);
    await death("bob");
    for (let tries = 0; tries < 20; tries++) await death("bob", { id: "the same" });
    expect(states).toEqual([]);
    breaker.recordSuccess();
    for (const owner of ["alice", "alice", "alice", "bob", "bob"]) await death(owner);
    expect(states).toEqual([]);
    expect(await death("carol")).toBe(false);
    expect(states).toEqual(["open"]);
    breaker.close();
  });

  test("without a sample admits one job as the probe, which pays an attempt if it dies, or another one", async () => {
    const { breaker, death, states } = breakerWithSample(null);
    for (const owner of ["alice", "alice", "alice", "bob", "bob", "bob"]) await death(owner);
    expect(breaker.state).toMatchObject({ state: "open", refuses: true });
    await eventually(() => expect(breaker.state).toMatchObject({ state: "half_open", refuses: false }));
    expect([breaker.room, breaker.admit("a"), breaker.room, breaker.admit("b")]).toEqual([1, "probe", 0, "wait"]);
    breaker.abandonProbe("a");
    expect(breaker.admit("b")).toBe("probe");
    expect(await death("bob", { id: "a" })).toBe(false);
    expect(await death("bob", { id: "b" })).toBe(true);
    expect(breaker.state.state).toBe("open");
    await eventually(() => expect(breaker.room).toBe(1));
    expect(breaker.admit("c")).toBe("probe");
    breaker.recordSuccess();
    expect(states).toEqual(["open", "half_open", "open", "half_open", "closed"]);
    expect(breaker.room).toBe(Number.POSITIVE_INFINITY);
  });

  test("is combined over workers: any closed one wins, a dead worker's counts only if none is alive", () => {
    const announced = (worker: string, rest: Partial<WorkerBreaker> = {}): WorkerBreaker => ({
      ...{ worker, version: "1", state: "open", refuses: true, retryAt: 1000 },
      ...rest,
    });
    expect(breakerOf("1", [], ["a"])).toMatchObject({ state: "closed", refuses: false, workers: 0 });
    expect(breakerOf("1", [announced("a")], ["a"])).toEqual({
      state: "open",
      refuses: true,
      retryAt: 1000,
      workers: 1,
    });
    expect(breakerOf("1", [announced("a")], ["a", "b"])).toMatchObject({ state: "closed", refuses: false, workers: 1 });
    expect(breakerOf("2", [announced("a")], ["a"])).toMatchObject({ state: "closed" });
    expect(breakerOf("1", [announced("dead")], [])).toMatchObject({ state: "open", refuses: true });
    expect(breakerOf("1", [announced("dead")], ["b"])).toMatchObject({ state: "closed", workers: 0 });
    const half = announced("b", { state: "half_open", refuses: false, retryAt: 500 });
    expect(breakerOf("1", [announced("a"), half], ["a", "b"])).toMatchObject({
      ...{ state: "half_open", refuses: false, retryAt: 500 },
    });
  });
});

const model = "echo-int64";
const versioned = "echo-int32";
const path = `/v1/models/${model}`;
const slotProgram = fileURLToPath(new URL("../support/models/crashing-slot.js", import.meta.url));

describe("a version that dies in every slot", () => {
  let stack: TestStack;
  let known: string;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: [model, versioned],
      manifests: {
        [versioned]: { kind: "tensor", attempts: 1, samples: [{ input: { x: [[1]] } }] },
        // One attempt, so that a job that pays for a death fails.
        [model]: { kind: "tensor", attempts: 1, samples: [{ input: { x: [[1]] } }] },
      },
      apis: 2,
      timing: { worker: { breakerOpenMs: 2000 } },
      slotProgram,
    });
    known = (await stack.predict(model, { x: [[100]] }, { cache: true })).body.id;
  });
  afterAll(() => stack.close());

  const behaviourFile = (name: string, version: string) => join(stack.modelsDir, name, `behaviour-${version}`);
  const setBehaviour = (behaviour: string, name = model, version = "1") =>
    writeFile(behaviourFile(name, version), behaviour);
  const stopCrashing = (name = model, version = "1") => rm(behaviourFile(name, version));
  const inferBody = (value: number) => ({
    inputs: [{ name: "x", datatype: "INT64", shape: [1, 1], data: [value] }],
  });
  const submitTo = (options: CallOptions, value = 1, rest: object = {}): Promise<Answer> =>
    stack.post(`${path}/predictions`, { input: { x: [[value]] }, cache: false, ...rest }, options);
  const untilOpenOnEveryApi = () =>
    eventually(async () => {
      for (const { url } of stack.apis) expect(await scrape(url, "ml_circuit_breaker_state", { model })).toBe(2);
    });

  test("is refused by all APIs, also by one that starts later, while accepted work waits unharmed", async () => {
    await setBehaviour("die");
    const headers = { "idempotency-key": "before" };
    const first = await submitTo({ headers }, 0);
    const accepted = await Promise.all(Array.from({ length: 12 }, (_, i) => stack.submit(model, { x: [[i]] })));
    const batch = await stack.post(`${path}/batches`, { inputs: [{ x: [[1]] }, { x: [[2]] }] }, { as: "bob" });
    expect([first.status, batch.status]).toEqual([202, 202]);
    await untilOpenOnEveryApi();
    const third = await stack.startApi();
    for (const { url } of stack.apis) {
      const refused = await Promise.all([
        submitTo({ url }),
        submitTo({ url, as: "bob" }, 1, { version: "1" }),
        stack.post(`${path}/batches`, { inputs: [{ x: [[1]] }] }, { url }),
        stack.post(`${path}/batches`, { inputs: [{ x: [[1]] }], version: "1" }, { url }),
        stack.call("POST", `${path}/batches`, {
          ...{ url, text: '{"x":[[1]]}\n', headers: { "content-type": "application/x-ndjson" } },
        }),
        stack.post(`/v2/models/${model}/infer`, inferBody(1), { url }),
      ]);
      for (const answer of refused) {
        assertProblem(answer, 503, "breaker_open");
        expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
        expect(Number(answer.headers.get("retry-after"))).toBeLessThan(61);
      }
      // Requests that need no run are still answered.
      const replayed = await submitTo({ url, headers }, 0);
      expect([replayed.status, replayed.body.id]).toEqual([202, first.body.id]);
      const cached = await stack.post(`${path}/predictions`, { input: { x: [[100]] } }, { url });
      expect([cached.status, cached.body.cached]).toEqual([200, true]);
      expect((await stack.get(`/v1/predictions/${known}`, { url })).status).toBe(200);
      expect((await stack.get("/ready", { url, as: null })).status).toBe(200);
      expect((await stack.get(`/v2/models/${model}/ready`, { url })).status).toBe(503);
    }
    const retry = await stack.post(`/v1/predictions/${accepted[11].id}/cancel`, {});
    expect([retry.status, retry.body.status]).toEqual([200, "canceled"]);
    assertProblem(await stack.post(`/v1/predictions/${accepted[11].id}/retry`, {}), 503, "breaker_open");
    const health = (await stack.get("/monitoring/health", { url: third.url })).body;
    expect(health).toMatchObject({ status: "degraded", circuit_breakers: { [model]: { 1: { workers: 1 } } } });
    expect(Date.parse(health.circuit_breakers[model][1].retry_at)).toBeGreaterThan(Date.now() - 60_000);
    expect((await stack.get(path)).body.accepting).toBe(false);
    expect(await scrape(third.url, "ml_requests_shed_total", { reason: "breaker_open" })).toBeGreaterThan(5);

    // One worker with a working version is enough, and it runs the waiting work too.
    const elsewhere = await mkdtemp(join(tmpdir(), "millrace-models-"));
    await cp(stack.modelsDir, elsewhere, { recursive: true });
    await rm(join(elsewhere, model, "behaviour-1"));
    const healthy = await stack.startWorker({ MODELS_DIR: elsewhere });
    const finals = await Promise.all([first.body, ...accepted.slice(0, 11)].map(({ id }) => stack.final(id)));
    expect(finals.map(({ attempts, status }) => [status, attempts])).toEqual(finals.map(() => ["succeeded", 1]));
    const ended = await stack.get(`/v1/batches/${batch.body.id}?wait=20`, { as: "bob" });
    expect(ended.body).toMatchObject({ status: "succeeded", counts: { succeeded: 2, failed: 0 } });
    await eventually(async () => {
      for (const { url } of stack.apis) expect((await submitTo({ url })).status).toBe(202);
    });
    const then = (await stack.get("/monitoring/health")).body;
    expect(then).toMatchObject({ status: "degraded", circuit_breakers: { [model]: { 1: { workers: 1 } } } });
    expect(then.circuit_breakers[model][1].state).toBe("closed");

    await stopCrashing();
    expect(await healthy.stop()).toBe(0);
    await rm(elsewhere, { recursive: true });
  }, 60_000);

  test("gives way to another version of the model, whose jobs overtake those that wait for it", async () => {
    const folder = (name: string) => join(stack.modelsDir, versioned, name);
    await cp(folder("1"), folder("aside"), { recursive: true });
    await rename(folder("aside"), folder("2"));
    const submit = (rest: object = {}) =>
      stack.post(`/v1/models/${versioned}/predictions`, { input: { x: [[1]] }, cache: false, ...rest });
    await eventually(async () => expect((await submit()).body.version).toBe("2"));
    await setBehaviour("die", versioned, "2");
    const waiting = await Promise.all(Array.from({ length: 30 }, () => submit({ version: "2" })));
    await eventually(async () => assertProblem(await submit({ version: "2" }), 503, "breaker_open"));
    const others = await Promise.all(Array.from({ length: 5 }, () => submit()));
    expect(others.map(({ body }) => body.version)).toEqual(others.map(() => "1"));
    for (const { body } of others) expect((await stack.final(body.id)).status).toBe("succeeded");
    const { body } = await stack.get(`/v1/models/${versioned}`);
    expect(body.versions).toMatchObject([{ circuit_breaker: "closed" }, { circuit_breaker: "open" }]);
    expect(body).toMatchObject({ accepting: true, default_version: "1" });
    await stopCrashing(versioned, "2");
    const accepted = waiting.filter(({ status }) => status === 202);
    expect(accepted.length).toBeGreaterThan(0);
    for (const { body } of accepted)
      expect(await stack.final(body.id)).toMatchObject({ status: "succeeded", attempts: 1 });
    await eventually(async () => expect((await submit()).body.version).toBe("2"));
  }, 60_000);

  test("is served again after the retry time if the worker that opened the breaker dies", async () => {
    await eventually(async () => {
      expect((await stack.predict(model, { x: [[9]] })).body.status).toBe("succeeded");
      const { body } = await stack.get("/monitoring/health");
      expect(body.circuit_breakers[model][1]).toEqual({ state: "closed", workers: 0, retry_at: null });
    }, 40_000);
    await setBehaviour("die");
    const { body } = await submitTo({});
    await untilOpenOnEveryApi();
    const [worker] = stack.workers as [TestStack["workers"][number]];
    worker.child.kill("SIGKILL");
    await worker.exited;
    assertProblem(await submitTo({}), 503, "breaker_open");
    const waits = await eventually(async () => {
      const answer = await submitTo({});
      expect(answer.status).toBe(202);
      return answer.body;
    }, 30_000);
    await stopCrashing();
    await stack.startWorker();
    for (const { id } of [body, waits]) expect(await stack.final(id)).toMatchObject({ status: "succeeded" });
  }, 60_000);
});

describe("inputs that no slot survives", () => {
  const endless = "endless-on-one";
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: [endless],
      manifests: { [endless]: { kind: "tensor", attempts: 1, timeout_ms: 200, batching: { max_batch_rows: 1 } } },
      timing: { worker: { breakerOpenMs: 1000 } },
    });
  });
  afterAll(() => stack.close());

  test("fail alone and open no breaker if one owner sends them, but open it if several owners do", async () => {
    const poison = async (...owners: Owner[]) => {
      const all: { id: string; as: Owner }[] = [];
      for (const as of owners) all.push({ id: (await stack.submit(endless, { x: [[1]] }, {}, { as })).id, as });
      return all;
    };
    for (const { id } of await poison("alice", "alice", "alice")) {
      expect(await stack.final(id)).toMatchObject({ status: "failed", error: { code: "timeout" } });
      // Still accepted, and delayed beyond the end of this test.
      await stack.submit(endless, { x: [[5]] }, { delay_ms: 3_600_000 }, { as: "bob" });
    }
    expect((await stack.predict(endless, { x: [[6]] }, {}, { as: "bob" })).body.status).toBe("succeeded");
    expect(stack.logged("breaker opens")).toEqual([]);

    const theirs = await poison("alice", "bob", "alice", "bob", "admin");
    const good = await stack.submit(endless, { x: [[7]] }, {}, { as: "bob" });
    await eventually(() => expect(stack.logged("breaker opens")).toHaveLength(1));
    expect(stack.logged("breaker opens")[0]).toMatchObject({ model: endless, version: "1" });
    // The waiting job is the probe.
    expect(await stack.final(good.id, { as: "bob" })).toMatchObject({ status: "succeeded", attempts: 1 });
    expect(stack.logged("breaker closes")).toHaveLength(1);
    // The job whose death opened the breaker paid no attempt for it, and was tried again.
    const ends = await Promise.all(theirs.map(({ as, id }) => stack.final(id, { as })));
    expect(ends.map(({ status }) => status)).toEqual(ends.map(() => "failed"));
  }, 60_000);
});
