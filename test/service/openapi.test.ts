import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { eventually } from "../support/eventually.js";
import { servedRoutes } from "../support/http/served-routes.js";
import { flow, manifestOf } from "../support/stack/flows.js";
import { type Answer, TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const admin = { as: "admin" } as const;

interface Schema {
  [key: string]: unknown;
}
interface Operation {
  responses: Record<string, { content?: Record<string, { schema: Schema }> }>;
}

/** The schema with additionalProperties false, so that undocumented fields are found. */
function strict(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(strict);
  if (typeof schema !== "object" || schema === null) return schema;
  const inner = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, strict(value)]));
  const isOpen = inner.type === "object" && inner.properties !== undefined && inner.additionalProperties === undefined;
  return isOpen ? { ...inner, additionalProperties: false } : inner;
}

describe("the OpenAPI document", () => {
  let stack: TestStack;
  // biome-ignore lint/suspicious/noExplicitAny: parsed JSON
  let document: any;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: [tree, "echo-float32", "throws-on-row", "intent-banking77", "transaction-anomaly"],
      env: { WEBHOOK_SECRET: `whsec_${"c2Vj".repeat(8)}`, WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
    });
    document = (await stack.get("/openapi.json", { as: null })).body;
  });
  afterAll(() => stack.close());

  const faultsOf = (schema: Schema, body: unknown): string[] => {
    const text = JSON.stringify(strict({ ...schema, $defs: document.components.schemas }));
    const parsed = z.fromJSONSchema(JSON.parse(text.replaceAll("#/components/schemas/", "#/$defs/"))).safeParse(body);
    return (parsed.error?.issues ?? []).map(({ message, path }) => `${path.join(".")}: ${message}`);
  };
  /** Asserts that the document has the answer's status and content type, and that its schema accepts the body. */
  const assertDocumented = (method: string, path: string, { body, headers, status }: Answer): void => {
    const operation = document.paths[path]?.[method] as Operation;
    const documented =
      operation.responses[status] ?? (status >= 400 ? document.components.responses.Problem : undefined);
    expect(documented, `${method} ${path} answers ${status}: ${JSON.stringify(body)}`).toBeDefined();
    const type = (headers.get("content-type") ?? "").split(";")[0] as string;
    const schema = documented.content?.[type]?.schema;
    expect(schema, `${method} ${path} answers ${status} with ${type}`).toBeDefined();
    const faults = faultsOf(schema as Schema, body);
    expect(faults, `${method} ${path} answers ${status}: ${JSON.stringify(body).slice(0, 2000)}`).toEqual([]);
  };
  const get = async (path: string, at = path, options: Parameters<TestStack["get"]>[1] = {}) => {
    const answer = await stack.get(at, options);
    assertDocumented("get", path, answer);
    expect(answer.status, JSON.stringify(answer.body)).toBe(200);
    return answer.body;
  };
  const post = async (path: string, at: string, body: unknown, options: Parameters<TestStack["post"]>[2] = {}) => {
    const answer = await stack.post(at, body, options);
    assertDocumented("post", path, answer);
    expect(answer.status, JSON.stringify(answer.body)).toBeLessThan(300);
    return answer.body;
  };
  /** A request that is refused with a documented problem. */
  const refused = async (path: string, at: string, body: unknown, options: Parameters<TestStack["post"]>[2] = {}) => {
    const answer = await stack.post(at, body, options);
    assertDocumented("post", path, answer);
    expect(answer.status).toBeGreaterThanOrEqual(400);
  };

  test("has every route of the router, and no other", () => {
    const served = servedRoutes().map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, "{$1}")}`);
    const documented = Object.entries<object>(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods)
        .filter((method) => method !== "parameters")
        .map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(documented.sort()).toEqual(served.sort());
  });

  test("has a named schema for every JSON answer", () => {
    for (const [path, methods] of Object.entries<Record<string, Operation>>(document.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (method === "parameters") continue;
        for (const [status, { content = {} }] of Object.entries(operation.responses)) {
          const schema = content["application/json"]?.schema;
          const typed = schema === undefined || typeof schema.$ref === "string";
          expect([path, method, status, typed]).toEqual([path, method, status, true]);
        }
      }
    }
  });

  test("is compared strictly: a missing field, another type and an additional field are found", async () => {
    const prediction = { $ref: "#/components/schemas/Prediction" };
    const { id } = await stack.submit(tree, flow(1));
    const whole = await stack.final(id);
    expect(faultsOf(prediction, whole)).toEqual([]);
    const { model: _, ...lacking } = whole;
    for (const wrong of [lacking, { ...whole, attempts: "1" }, { ...whole, more: 1 }, { ...whole, urls: {} }]) {
      expect(faultsOf(prediction, wrong)).not.toEqual([]);
    }
  });

  test("has schemas that accept the answers about predictions, from submission to retry", async () => {
    const submit = "/v1/models/{model}/predictions";
    const at = `/v1/models/${tree}/predictions`;
    const webhook = { url: "http://127.0.0.1:19999/hook" };
    const { id } = await post(submit, at, { input: flow(1), metadata: { a: [1] }, webhook });
    await get("/v1/predictions/{id}", `/v1/predictions/${id}?wait=20`);
    await post(submit, at, { input: flow(1) }, { headers: { prefer: "wait=20" } });
    await get("/v1/predictions", "/v1/predictions?limit=3");
    await eventually(async () => {
      const { data } = await get("/v1/predictions/{id}/deliveries", `/v1/predictions/${id}/deliveries`);
      expect(data[0].attempts).toHaveLength(1);
    });
    const later = await post(submit, at, { input: flow(2), delay_ms: 3_600_000 });
    await post("/v1/predictions/{id}/cancel", `/v1/predictions/${later.id}/cancel`, {});
    await post("/v1/predictions/{id}/retry", `/v1/predictions/${later.id}/retry`, {});
  });

  test("has schemas that accept the answers about batches", async () => {
    const path = "/v1/models/{model}/batches";
    const { id } = await post(path, `/v1/models/${tree}/batches`, { inputs: [flow(1), [1]] });
    const ended = await get("/v1/batches/{id}", `/v1/batches/${id}?wait=20`);
    expect(ended.status).toBe("partial");
    await get("/v1/batches", "/v1/batches?limit=1");
    const json = { headers: { accept: "application/json" } };
    const { data } = await get("/v1/batches/{id}/results", `/v1/batches/${id}/results`, json);
    expect(data).toHaveLength(2);
    await get("/v1/batches/{id}/deliveries", `/v1/batches/${id}/deliveries`);
    await refused("/v1/batches/{id}/cancel", `/v1/batches/${id}/cancel`, {});
  });

  test("has schemas that accept the answers about failures and redrives", async () => {
    const submit = "/v1/models/{model}/predictions";
    const options = { headers: { prefer: "wait=20" } };
    const failed = await post(submit, "/v1/models/throws-on-row/predictions", { input: { x: [[97]] } }, options);
    expect(failed.status).toBe("failed");
    expect((await get("/v1/failures")).data).toHaveLength(1);
    const { id } = await post("/v1/failures/redrive", "/v1/failures/redrive", { model: "throws-on-row" });
    await get("/v1/failures/redrives");
    await get("/v1/failures/redrives/{id}", `/v1/failures/redrives/${id}?wait=20`);
  });

  test("has schemas that accept the answers about models of every kind, and about admin actions on them", async () => {
    const { data } = await get("/v1/models");
    expect(new Set(data.map(({ kind }: { kind: string }) => kind))).toEqual(new Set(["tabular", "text", "tensor"]));
    await get("/v1/models/{model}", `/v1/models/${tree}`);
    await post("/v1/models/{model}/load", `/v1/models/${tree}/load`, {}, admin);
    const last = "/v1/models/throws-on-row/unload";
    await post("/v1/models/{model}/unload", last, { version: "1" }, admin);
    const traffic = await stack.call("PUT", `/v1/models/${tree}/traffic`, { json: { weights: { "1": 1 } }, ...admin });
    assertDocumented("put", "/v1/models/{model}/traffic", traffic);
    await post("/v1/models/{model}/rollback", `/v1/models/${tree}/rollback`, {}, admin);
    await refused("/v1/models/{model}/rollback", `/v1/models/${tree}/rollback`, {}, admin);
  });

  test("has schemas that accept the answers about keys", async () => {
    const { id } = await post("/admin/keys", "/admin/keys", { owner: "carol" }, admin);
    await get("/admin/keys", "/admin/keys", admin);
    const made = await post("/admin/keys/{key}/rotate", `/admin/keys/${id}/rotate`, {}, admin);
    await post("/admin/keys/{key}/revoke", `/admin/keys/${made.id}/revoke`, {}, admin);
  });

  test("has schemas that accept the answers of the Open Inference Protocol", async () => {
    const inputs = [{ name: "x", datatype: "FP32", shape: [1, 3], data: [1, 2, 3] }];
    const model = "/v2/models/{model}";
    const at = "/v2/models/echo-float32";
    await post(`${model}/infer`, `${at}/infer`, { id: "a", inputs });
    await post(`${model}/infer`, `${at}/infer`, { inputs }, { headers: { prefer: "respond-async" } });
    await refused(`${model}/infer`, `${at}/infer`, { inputs: [] });
    await post(`${model}/versions/{version}/infer`, `${at}/versions/1/infer`, { inputs });
    await get("/v2");
    await get("/v2/health/live", "/v2/health/live", { as: null });
    await get("/v2/health/ready", "/v2/health/ready", { as: null });
    await get("/v2/models/stats");
    for (const [path, name] of [
      [model, at],
      [`${model}/versions/{version}`, `${at}/versions/1`],
    ] as const) {
      await get(path, name);
      await get(`${path}/ready`, `${name}/ready`);
      await get(`${path}/stats`, `${name}/stats`);
      await get(`${path}/config`, `${name}/config`);
    }
    await post("/v2/repository/index", "/v2/repository/index", { ready: true });
    await post("/v2/repository/models/{model}/load", "/v2/repository/models/echo-float32/load", {}, admin);
    const unload = "/v2/repository/models/{model}/unload";
    await refused(unload, "/v2/repository/models/echo-float32/unload", { parameters: { force: true } }, admin);
    await post(unload, "/v2/repository/models/throws-on-row/unload", {}, admin);
    await post("/v2/repository/models/{model}/load", "/v2/repository/models/throws-on-row/load", {}, admin);
  });

  test("has schemas that accept the answers for existing clients of the shipped services", async () => {
    const features = flow(1);
    await post("/predict", "/predict", { features, model_name: "decision_tree" });
    await post("/predict/batch", "/predict/batch", { flows: [{ features }, {}], model_name: "decision_tree" });
    await post("/predict/intent", "/predict/intent", { query: "where is my card" });
    await post("/predict/anomaly", "/predict/anomaly", manifestOf("transaction-anomaly").samples[0].input);
    await refused("/predict/anomaly", "/predict/anomaly", { nothing: 1 });
    await get("/models");
  });

  test("has schemas that accept the answers about the service itself", async () => {
    await get("/monitoring/health");
    await get("/monitoring/statistics");
    for (const path of ["/health", "/ready", "/metrics", "/schemas/model.json", "/openapi.json", "/docs/style.css"]) {
      await get(path, path, { as: null });
    }
    await get("/", "/", { as: null, headers: { accept: "application/json" } });
  });
});
