import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { flow, manifestOf } from "../support/stack/flows.js";
import { childrenOf } from "../support/stack/processes.js";
import { keys, TestStack } from "../support/stack/stack.js";

const model = "intrusion-decision-tree";
const owners = /alice|bob|reader|admin-key/;
const features: string[] = manifestOf(model).input.features;

/** A number that occurs nowhere else in logs and metrics. */
const marked = 8_675_309;

describe("operations", () => {
  let stack: TestStack;
  let workerUrl: string;
  let finished: { id: string };
  const basic = (key: string) => ({ authorization: `Basic ${Buffer.from(`me:${key}`).toString("base64")}` });
  const board = (method: string, path: string) =>
    stack.call(method, `/admin/queues${path}`, { as: null, headers: basic(keys.admin) });
  const queueOf = async (name: string, status = "latest") => {
    const { body } = await board("GET", `/api/queues?activeQueue=${name}&status=${status}&page=1&jobsPerPage=10`);
    return body.queues.find((queue: { name: string }) => queue.name === name);
  };
  const metricsOf = async (base: string) => (await fetch(`${base}/metrics`)).text();

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model, "echo-int64", "throws-on-row"] });
    workerUrl = `http://127.0.0.1:${stack.workers[0]?.port}`;
    const headers = { "x-request-id": "ops-request-1" };
    finished = (await stack.predict(model, flow(marked), { metadata: { note: "kept-quiet" } }, { headers })).body;
    await stack.predict(model, flow(marked), {}, { as: "bob" });
    await stack.predict(model, [], {}, { as: "bob" });
    await stack.predict("throws-on-row", { x: [[1_000_000]] });
    await stack.submit(model, flow(marked), { delay_ms: 600_000 });
    await stack.get(`/v1/predictions/${finished.id}`);
    await stack.get(`/v1/predictions/${finished.id}/nothing/alice`);
  });
  afterAll(() => stack.close());

  test("an API reports without a key that it is healthy, that Redis is writable, and its durability", async () => {
    const health = await stack.get("/health", { as: null });
    expect(health.status).toBe(200);
    const told = { status: "healthy", models_loaded: 3, uptime_seconds: expect.any(Number) };
    expect(health.body).toEqual(told);
    // The names of models are for keys that may read.
    const available_models = ["echo-int64", model, "throws-on-row"];
    expect((await stack.get("/health")).body).toEqual({ ...told, available_models });
    const stranger = { as: null, headers: { authorization: "Bearer nobody" } };
    expect((await stack.get("/health", stranger)).body).toEqual(told);
    const ready = await stack.get("/ready", { as: null });
    expect(ready.status).toBe(200);
    expect(ready.body).toMatchObject({ status: "ready", redis: "writable", durability: "fsync", warnings: [] });
    expect((await fetch(`${stack.url}/ready`, { method: "HEAD" })).status).toBe(200);
  });

  test("a worker reports on its own port that it is healthy, and its models", async () => {
    expect(await (await fetch(`${workerUrl}/health`)).json()).toMatchObject({ status: "healthy" });
    const ready = await fetch(`${workerUrl}/ready`);
    expect(ready.status).toBe(200);
    const state = (await ready.json()) as { models: { model: string; version: string }[] };
    expect(state).toMatchObject({ ready: true, slots: { alive: 1, configured: 1 }, refused: [] });
    expect(state.models.map((served) => `${served.model}/${served.version}`)).toEqual([
      "echo-int64/1",
      `${model}/1`,
      "throws-on-row/1",
    ]);
    expect((await fetch(`${workerUrl}/nothing`)).status).toBe(404);
    expect((await fetch(`${workerUrl}/health`, { method: "POST" })).status).toBe(405);
  });

  test.skipIf(process.platform !== "linux")(
    "inference processes see no addresses and no secrets, and send no telemetry",
    async () => {
      const [slot] = await childrenOf(stack.workers[0]?.pid as number);
      const names = (await readFile(`/proc/${slot}/environ`, "utf8")).split("\0").filter(Boolean);
      expect(names).toContain("ORT_DISABLE_TELEMETRY=1");
      expect(names.filter((text) => /^(REDIS|API|WEBHOOK|OTEL)_/.test(text))).toEqual([]);
    },
  );

  test("a worker's metrics count predictions by model, version and status, and time their stages", async () => {
    const text = await eventually(async () => {
      const metrics = await metricsOf(workerUrl);
      expect(metrics).toContain(`ml_prediction_total{model="${model}",version="1",status="succeeded"} 2`);
      return metrics;
    });
    expect(text).toContain('ml_prediction_total{model="throws-on-row",version="1",status="failed"} 1');
    // The cause of a failure; all others, and those of other models, are 0 from the start.
    const failures = (of: string, work: string, code: string) =>
      `ml_failure_total{model="${of}",version="1",work="${work}",code="${code}"}`;
    expect(text).toContain(`${failures("throws-on-row", "prediction", "inference_failed")} 1`);
    expect(text).toContain(`${failures("throws-on-row", "prediction", "timeout")} 0`);
    expect(text).toContain(`${failures("echo-int64", "row", "poisoned")} 0`);
    expect(text).toContain('ml_prediction_total{model="echo-int64",version="1",status="failed"} 0');
    for (const stage of ["queue", "inference", "total"]) {
      expect(text).toContain(`ml_prediction_latency_seconds_count{model="${model}",stage="${stage}"} 2`);
    }
    expect(text).toContain(`ml_prediction_confidence_count{model="${model}"} 2`);
    expect(text).toMatch(new RegExp(`^ml_batch_rows_sum{model="${model}"} 2$`, "m"));
    expect(text).toMatch(/^ml_event_loop_lag_seconds\{percentile="99"\} [\d.]+/m);
    expect(text).toMatch(/^process_resident_memory_bytes \d+/m);
  });

  test("an API's metrics count refused inputs, queue depths, and requests by route template", async () => {
    const text = await metricsOf(stack.url);
    expect(text).toContain(`ml_invalid_input_total{model="${model}",code="invalid_input"} 1`);
    expect(text).toContain(`ml_queue_depth{model="${model}",state="scheduled"} 1`);
    expect(text).toContain(`ml_queue_depth{model="${model}",state="waiting"} 0`);
    const count = "ml_http_request_duration_seconds_count";
    expect(text).toContain(`${count}{method="POST",route="/v1/models/:model/predictions",status="200"} 3`);
    expect(text).toContain(`${count}{method="POST",route="/v1/models/:model/predictions",status="422"} 1`);
    expect(text).toContain(`${count}{method="GET",route="/v1/predictions/:id",status="200"} 1`);
    const before = Number(/^ml_http_responses_total\{class="4xx"\} (\d+)/m.exec(text)?.[1]);
    expect(before).toBeGreaterThan(0);
    expect(text).toContain('ml_http_responses_total{class="5xx"} 0');
    // What a client asks for and no server does, is its own mistake; probes and scrapes do not count.
    expect((await stack.get("/ready")).status).toBe(200);
    await stack.call("GET", "/no-such-path");
    expect(await metricsOf(stack.url)).toContain(`ml_http_responses_total{class="4xx"} ${before + 1}`);
    expect(text).toMatch(/^ml_event_loop_lag_seconds\{percentile="99"\} [\d.]+/m);
  });

  test("no label of a metric contains an owner, a key or an id", async () => {
    for (const base of [stack.url, workerUrl]) {
      const text = await metricsOf(base);
      expect(text).not.toMatch(owners);
      expect(text).not.toContain(finished.id);
    }
  });

  test("both processes log one prediction with its request, its id and its model", async () => {
    const lines = await eventually(() => {
      const all = ["prediction accepted", "prediction finished"].flatMap((message) => stack.logged(message));
      const found = all.filter(({ prediction_id }) => prediction_id === finished.id);
      expect(new Set(found.map(({ service }) => service))).toEqual(new Set(["api", "worker"]));
      return found;
    });
    for (const line of lines) expect(line).toMatchObject({ request_id: "ops-request-1", model, level: "info" });
    for (const line of stack.log) expect(Date.parse(line.timestamp as string)).toBeGreaterThan(0);
  });

  test("no log line contains a key, an input or metadata", () => {
    const text = stack.log.map((line) => JSON.stringify(line)).join("\n");
    for (const key of Object.values(keys)) expect(text).not.toContain(key);
    for (const secret of [String(marked), "1000000", "kept-quiet", Buffer.from(keys.alice).toString("base64")]) {
      expect(text).not.toContain(secret);
    }
  });

  test("the queue page asks a browser for a password, and accepts only an admin's key", async () => {
    const nobody = await stack.get("/admin/queues", { as: null });
    assertProblem(nobody, 401, "unauthenticated");
    expect(nobody.headers.get("www-authenticate")).toMatch(/^Basic realm=/);
    for (const path of ["", "/", "/api/queues", "/static/images/logo.svg"]) {
      const wrong = await stack.get(`/admin/queues${path}`, { as: null, headers: basic("who") });
      assertProblem(wrong, 401, "unauthenticated");
      const user = await stack.get(`/admin/queues${path}`, { as: null, headers: basic(keys.alice) });
      assertProblem(user, 403, "forbidden");
    }
    const page = await board("GET", "");
    expect(page.status).toBe(200);
    expect(page.headers.get("content-type")).toMatch(/^text\/html/);
    expect(page.body).toContain("Millrace");
    expect((await stack.get("/admin/queues", { as: "admin" })).status).toBe(200);
  });

  test("the queue page counts jobs by state and shows their inputs by feature name", async () => {
    await eventually(async () => {
      expect((await queueOf(model)).counts).toMatchObject({ active: 0, completed: 2, delayed: 1, waiting: 0 });
      expect((await queueOf("throws-on-row")).counts).toMatchObject({ failed: 1 });
    });
    const [job] = (await queueOf(model, "delayed")).jobs;
    expect(job.data).toMatchObject({ owner: "alice", version: "1" });
    expect(Object.keys(job.data.input)).toEqual(features);
    expect(Object.values(job.data.input)).toEqual(flow(marked).map(Math.fround));
    const [failed] = (await queueOf("throws-on-row", "failed")).jobs;
    expect(failed.data.input).toEqual({ x: { datatype: "int64", shape: [1, 1], data: ["1000000"] } });
  });

  test("the queue page is read-only", async () => {
    const [job] = (await queueOf(model, "delayed")).jobs;
    for (const [method, path] of [
      ["PUT", `/api/queues/${model}/pause`],
      ["PUT", `/api/queues/${model}/empty`],
      ["PUT", `/api/queues/${model}/obliterate`],
      ["PUT", `/api/queues/${model}/clean/completed`],
      ["PUT", `/api/queues/${model}/promote`],
      ["PUT", `/api/queues/${model}/${job.id}/promote`],
      ["PUT", `/api/queues/${model}/${job.id}/clean`],
      ["PUT", `/api/queues/${model}/retry/completed`],
      ["POST", `/api/queues/${model}/add`],
    ] as const) {
      expect([path, (await board(method, path)).status]).toEqual([path, 405]);
    }
    await board("PUT", "/api/queues/pause");
    const after = await queueOf(model, "delayed");
    expect(after).toMatchObject({ readOnlyMode: true, isPaused: false, counts: { completed: 2, delayed: 1 } });
    const { data: _, ...left } = after.jobs[0];
    expect(job).toMatchObject(left);
  });

  test("the schema of model.json is served without a key and names all fields of a manifest", async () => {
    const { body, status } = await stack.get("/schemas/model.json", { as: null });
    expect(status).toBe(200);
    expect(body.$schema).toMatch(/^https:\/\/json-schema\.org\//);
    const kinds = body.oneOf.map((option: { properties: { kind: { const: string } } }) => option.properties.kind.const);
    expect(kinds).toEqual(["tabular", "text", "image", "tensor"]);
    const [tabular] = body.oneOf;
    expect(tabular.required).toEqual(["kind", "input"]);
    expect(Object.keys(tabular.properties)).toEqual(expect.arrayContaining(Object.keys(manifestOf(model))));
  });
});
