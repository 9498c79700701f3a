import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { hasData, readFlows, readHeldOut } from "../support/read-data.js";
import { flow, manifestOf } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const names = ["random_forest", "xgboost", "decision_tree"] as const;
const models = ["intrusion-random-forest", "intrusion-xgboost", "intrusion-decision-tree"];

describe("the paths of intrusion detection", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models });
  });
  afterAll(() => stack?.close());

  const sampleRows = () => {
    const { input, samples } = manifestOf("intrusion-xgboost");
    return samples.map((sample: { input: Record<string, number>; expected: { label: string } }) => ({
      features: input.features.map((name: string) => sample.input[name]),
      label: sample.expected.label,
    })) as { features: number[]; label: string }[];
  };

  test.each(names)("POST /predict answers as documented, by %s", async (model_name) => {
    for (const { features, label } of sampleRows()) {
      const { body, headers, status } = await stack.post("/predict", { features, model_name });
      expect(status, JSON.stringify(body)).toBe(200);
      expect(headers.get("content-type")).toMatch(/^application\/json/);
      expect(Object.keys(body)).toEqual([
        "prediction",
        "confidence",
        "probabilities",
        "model_name",
        "model_version",
        "inference_time_ms",
        "timestamp",
        "prediction_id",
      ]);
      expect(body).toMatchObject({ prediction: label, model_name, model_version: "1" });
      expect(body.probabilities[label]).toBe(body.confidence);
      expect(new Date(body.timestamp).toISOString()).toBe(body.timestamp);
      const prediction = await stack.get(`/v1/predictions/${body.prediction_id}`);
      expect(prediction.body.model).toBe(models[names.indexOf(model_name)]);
      expect(prediction.body.output.label).toBe(label);
    }
  });

  test("without a model name the random forest answers; an unknown name is refused", async () => {
    expect((await stack.post("/predict", { features: flow() })).body.model_name).toBe("random_forest");
    const wrong = await stack.post("/predict", { features: flow(), model_name: "svm", top: 1 });
    expect(pointersOf(assertProblem(wrong, 422, "invalid_request")).sort()).toEqual(["/model_name", "/top"]);
  });

  test("invalid features are reported by pointers into the body", async () => {
    const short = await stack.post("/predict", { features: flow().slice(1) });
    expect(pointersOf(assertProblem(short, 422, "invalid_input"))).toEqual(["/features"]);
    const features: unknown[] = flow();
    features[3] = "x";
    features[77] = null;
    const bad = await stack.post("/predict", { features });
    expect(pointersOf(assertProblem(bad, 422, "invalid_input"))).toEqual(["/features/3", "/features/77"]);
  });

  test("POST /predict requires a key, a content type and JSON like every path", async () => {
    assertProblem(await stack.post("/predict", { features: flow() }, { as: null }), 401, "unauthenticated");
    assertProblem(await stack.post("/predict", { features: flow() }, { as: "reader" }), 403, "forbidden");
    assertProblem(await stack.call("POST", "/predict", { text: "{}" }), 415, "unsupported_media_type");
    assertProblem(await stack.get("/predict"), 405, "method_not_allowed");
    const headers = { "content-type": "application/json" };
    assertProblem(await stack.call("POST", "/predict", { text: "{", headers }), 400, "malformed_json");
  });

  test("POST /predict/batch answers each flow at its index; an invalid one fails alone", async () => {
    const rows = sampleRows();
    const flows: unknown[] = rows.map(({ features }) => ({ features }));
    flows.splice(1, 0, { features: [1, 2] }, { feature: flow() }, 7);
    const { body, status } = await stack.post("/predict/batch", { flows, model_name: "xgboost" });
    expect(status, JSON.stringify(body)).toBe(200);
    expect(Object.keys(body)).toEqual([
      "predictions",
      "total",
      "succeeded",
      "failed",
      "model_name",
      "inference_time_ms",
      "timestamp",
    ]);
    expect(body).toMatchObject({ total: flows.length, succeeded: rows.length, failed: 3, model_name: "xgboost" });
    expect(body.predictions.map(({ index }: { index: number }) => index)).toEqual(flows.map((_, i) => i));
    const [first, short, misnamed, number, ...rest] = body.predictions;
    for (const row of [short, misnamed, number]) expect(Object.keys(row)).toEqual(["index", "error"]);
    expect(short.error).toMatch(/78/);
    expect([first, ...rest].map(({ prediction }) => prediction)).toEqual(rows.map(({ label }) => label));
    for (const row of [first, ...rest]) {
      expect(Object.keys(row)).toEqual(["index", "prediction", "confidence", "probabilities"]);
      expect(row.probabilities[row.prediction]).toBe(row.confidence);
    }
  });

  test.skipIf(!hasData("cicids2017"))(
    "POST /predict/batch answers held-out flows like the training library",
    async () => {
      const { classes, probabilities, rows } = readHeldOut("intrusion-xgboost");
      const flows = readFlows(rows.slice(0, 1000));
      const body = { flows: flows.map((features) => ({ features })), model_name: "xgboost" };
      const answer = await stack.post("/predict/batch", body);
      expect(answer.body, JSON.stringify(answer.body).slice(0, 500)).toMatchObject({ total: 1000, succeeded: 1000 });
      let within = 0;
      for (const row of answer.body.predictions) {
        const wanted = probabilities[row.index] as Float32Array;
        const away = classes.map((label, c) => Math.abs(row.probabilities[label] - (wanted[c] as number)));
        if (Math.max(...away) <= 1e-5) within += 1;
      }
      expect(within).toBeGreaterThanOrEqual(999);
    },
  );

  test("1 to 1,000 flows are accepted; none and 1,001 are refused", async () => {
    const flows = Array.from({ length: 1000 }, (_, i) => ({ features: flow(i) }));
    const { body, status } = await stack.post("/predict/batch", { flows, model_name: "decision_tree" });
    expect(status, JSON.stringify(body).slice(0, 500)).toBe(200);
    expect(body).toMatchObject({ total: 1000, succeeded: 1000, failed: 0 });
    const more = await stack.post("/predict/batch", { flows: [...flows, flows[0]], model_name: "decision_tree" });
    expect(pointersOf(assertProblem(more, 422, "invalid_request"))).toEqual(["/flows"]);
    const none = await stack.post("/predict/batch", { flows: [] });
    expect(pointersOf(assertProblem(none, 422, "invalid_request"))).toEqual(["/flows"]);
  });

  test("the same Idempotency-Key with the same body answers with the same prediction", async () => {
    const headers = { "idempotency-key": "flow-1" };
    const first = await stack.post("/predict", { features: flow(1) }, { headers });
    const again = await stack.post("/predict", { features: flow(1) }, { headers });
    expect(again.body).toEqual(first.body);
    const other = await stack.post("/predict", { features: flow(2) }, { headers });
    assertProblem(other, 422, "idempotency_mismatch");
  });

  test("GET /models and GET /health list the served models", async () => {
    const { body } = await stack.get("/models", { as: "reader" });
    const expected = [...models].sort().map((name) => {
      const { kind, metrics } = manifestOf(name);
      return { name, version: "1", kind, metrics };
    });
    expect(body).toEqual({ models: expected });
    assertProblem(await stack.get("/models", { as: null }), 401, "unauthenticated");
    const health = await stack.get("/health", { as: "reader" });
    expect(health.body).toMatchObject({ status: "healthy", models_loaded: 3, available_models: [...models].sort() });
  });

  test("an unknown model is a 404, no worker a 503, a late result a 504 with the prediction's Location", async () => {
    assertProblem(await stack.post("/predict/intent", { query: "hi" }), 404, "model_not_found");
    const [worker] = stack.workers as [(typeof stack.workers)[0]];
    const { url } = await stack.startApi({ SYNC_TIMEOUT_SECONDS: "1" });
    // A stopped worker counts as alive until its last heartbeat expires.
    worker.child.kill("SIGSTOP");
    try {
      const late = await stack.post("/predict", { features: flow(5_000) }, { url });
      assertProblem(late, 504, "not_in_time");
      const location = late.headers.get("location") as string;
      expect((await stack.get(location)).body).toMatchObject({ model: "intrusion-random-forest", status: "queued" });
      worker.child.kill("SIGCONT");
      expect(await stack.final(location.slice("/v1/predictions/".length))).toMatchObject({ status: "succeeded" });
    } finally {
      worker.child.kill("SIGCONT");
    }
    expect(await worker.stop()).toBe(0);
    // The API's list of workers is up to two seconds old.
    await eventually(async () => expect((await stack.get(`/v1/models/${models[0]}`)).body.workers_alive).toBe(0));
    const none = await stack.post("/predict", { features: flow(5_001) });
    assertProblem(none, 503, "no_worker");
    expect(Number(none.headers.get("retry-after"))).toBeGreaterThan(0);
    assertProblem(await stack.post("/predict/batch", { flows: [{ features: flow() }] }), 503, "no_worker");
  });
});
