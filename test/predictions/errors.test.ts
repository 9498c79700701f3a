import { modelTag, newId } from "@millrace/shared/redis/ids.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { flow } from "../support/stack/flows.js";
import { type CallOptions, TestStack } from "../support/stack/stack.js";

const model = "intrusion-decision-tree";
const path = `/v1/models/${model}/predictions`;
const json = { "content-type": "application/json" };
const klingon = "application/json; charset=klingon";
const valid = (headers = {}) => ({ text: JSON.stringify({ input: flow() }), headers: { ...json, ...headers } });
const freeId = (name: string) => newId(modelTag(name));

describe("errors", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: [model, "echo-float32", "echo-float64"],
      env: { MAX_BODY_BYTES: "20000", MAX_QUEUE_DEPTH: "3" },
    });
    // Models stay known without a worker, and the queues only grow.
    await (stack.workers[0] as (typeof stack.workers)[0]).stop();
  });
  afterAll(() => stack.close());

  const requests: [what: string, request: string, options: CallOptions, status: number, code: string][] = [
    ["a malformed body", `POST ${path}`, { text: "{", headers: json }, 400, "malformed_json"],
    ["a body that ends early", `POST ${path}`, { text: '{"input":[1,', headers: json }, 400, "malformed_json"],
    ["NaN, which is not JSON", `POST ${path}`, { text: '{"input":[NaN]}', headers: json }, 400, "malformed_json"],
    ["Prefer: wait=99", `POST ${path}`, valid({ prefer: "wait=99" }), 400, "bad_header"],
    ["Prefer: wait=soon", `POST ${path}`, valid({ prefer: "wait=soon" }), 400, "bad_header"],
    ["a word for seconds", "GET /v1/predictions/x?wait=abc", {}, 400, "bad_query"],
    ["a wait of 61 s", "GET /v1/predictions/x?wait=61", {}, 400, "bad_query"],
    ["a negative wait", "GET /v1/predictions/x?wait=-1", {}, 400, "bad_query"],
    ["a wait of half seconds", "GET /v1/predictions/x?wait=1.5", {}, 400, "bad_query"],
    ["two waits", "GET /v1/predictions/x?wait=1&wait=2", {}, 400, "bad_query"],
    ["an unknown query parameter", "GET /v1/predictions/x?wiat=1", {}, 400, "bad_query"],
    ["an unknown query parameter of models", "GET /v1/models?limit=1", {}, 400, "bad_query"],
    ["a query on submission", `POST ${path}?wait=5`, valid(), 400, "bad_query"],
    ["a path that cannot be decoded", "GET /v1/predictions/%E0%A4%A", {}, 400, "malformed_request"],
    ["no key", "GET /v1/models", { as: null }, 401, "unauthenticated"],
    ["an unknown key", "GET /v1/models", { headers: { authorization: "Bearer who" } }, 401, "unauthenticated"],
    ["an unknown scheme", "GET /v1/models", { headers: { authorization: "Digest alice-key" } }, 401, "unauthenticated"],
    ["no key and a bad body", `POST ${path}`, { as: null, text: "{", headers: json }, 401, "unauthenticated"],
    ["no key at an unknown path", "GET /v1/nothing", { as: null }, 401, "unauthenticated"],
    ["a reader who submits", `POST ${path}`, { as: "reader", ...valid() }, 403, "forbidden"],
    ["a user who opens the queue page", "GET /admin/queues", { as: "alice" }, 403, "forbidden"],
    ["an unknown path", "GET /v1/nothing", {}, 404, "not_found"],
    ["an unknown model", "GET /v1/models/nobody", {}, 404, "model_not_found"],
    ["__proto__ as a model", "GET /v1/models/__proto__", {}, 404, "model_not_found"],
    ["work for an unknown model", "POST /v1/models/nobody/predictions", valid(), 404, "model_not_found"],
    ["an unknown version", `POST ${path}`, { json: { input: flow(), version: "7" } }, 404, "version_not_found"],
    ["an invalid id", "GET /v1/predictions/nope", {}, 404, "prediction_not_found"],
    ["an id that is a path", "GET /v1/predictions/..%2F..%2Fetc%2Fpasswd", {}, 404, "prediction_not_found"],
    ["an id of no model", `GET /v1/predictions/${freeId("nobody")}`, {}, 404, "prediction_not_found"],
    ["an unknown id", `GET /v1/predictions/${freeId(model)}`, {}, 404, "prediction_not_found"],
    ["an answer in HTML", "GET /v1/models", { headers: { accept: "text/html" } }, 406, "not_acceptable"],
    ["a result in CSV", `POST ${path}`, valid({ accept: "text/csv" }), 406, "not_acceptable"],
    ["plain text", `POST ${path}`, valid({ "content-type": "text/plain" }), 415, "unsupported_media_type"],
    ["a form", `POST ${path}`, valid({ "content-type": "multipart/form-data" }), 415, "unsupported_media_type"],
    ["an unknown charset", `POST ${path}`, valid({ "content-type": klingon }), 415, "unsupported_media_type"],
    ["an unknown encoding", `POST ${path}`, valid({ "content-encoding": "rot13" }), 415, "unsupported_media_type"],
    ["a body that is too large", `POST ${path}`, { json: { input: "x".repeat(20_000) } }, 413, "body_too_large"],
  ];
  test.each(requests)("%s: %s", async (_what, request, options, status, code) => {
    const [method, url] = request.split(" ") as [string, string];
    const answer = await stack.call(method, url, options);
    assertProblem(answer, status, code);
    expect(answer.headers.get("www-authenticate")).toEqual(status === 401 ? expect.stringMatching(/^Bearer/) : null);
  });

  const details: [what: string, request: string, options: CallOptions, detail: string][] = [
    ["an unknown model", "GET /v1/models/nobody", {}, 'There is no model "nobody". GET /v1/models lists the models.'],
    ["an unknown id", "GET /v1/predictions/nope", {}, "There is no such prediction, or it has expired."],
    ["an undecodable path", "GET /v1/predictions/%FF", {}, "The path is not valid percent-encoded UTF-8."],
    [
      "a long body",
      `POST ${path}`,
      { json: { input: "x".repeat(20_000) } },
      "The body is larger than 20000 bytes (MAX_BODY_BYTES).",
    ],
    [
      "JSON that ends early",
      `POST ${path}`,
      { text: '{"input":[1', headers: json },
      "The body is not JSON: it has a fault at character 12.",
    ],
  ];
  test.each(details)("the detail of %s names it", async (_what, request, options, detail) => {
    const [method, url] = request.split(" ") as [string, string];
    expect((await stack.call(method, url, options)).body.detail).toBe(detail);
  });

  test("an unknown X-API-Key is refused, and a known one works like a bearer token", async () => {
    assertProblem(await stack.get("/v1/models", { as: null, headers: { "x-api-key": "who" } }), 401, "unauthenticated");
    const known = await stack.get("/v1/models", { as: null, headers: { "x-api-key": "alice-key" } });
    expect(known.status).toBe(200);
  });

  test("a method that a path does not have is answered with the allowed ones", async () => {
    for (const [method, url, allow] of [
      ["DELETE", "/v1/predictions/x", ["GET", "HEAD"]],
      ["GET", path, ["POST"]],
      ["PUT", "/v1/models", ["GET", "HEAD"]],
      ["PATCH", `/v1/models/${model}`, ["GET", "HEAD"]],
      ["POST", "/health", ["GET", "HEAD"]],
    ] as const) {
      const answer = await stack.call(method, url);
      assertProblem(answer, 405, "method_not_allowed");
      expect(answer.headers.get("allow")?.split(/,\s*/).sort()).toEqual(allow);
    }
  });

  test("a body without a length is limited to MAX_BODY_BYTES too", async () => {
    const chunks = ['{"input":"', "x".repeat(30_000), '"}'];
    const body = new ReadableStream({
      pull: (sink) => (chunks.length > 0 ? sink.enqueue(Buffer.from(chunks.shift() as string)) : sink.close()),
    });
    const headers = { ...json, authorization: "Bearer alice-key" };
    const response = await fetch(stack.url + path, { method: "POST", headers, body, duplex: "half" } as RequestInit);
    assertProblem(
      { status: response.status, headers: response.headers, body: await response.json() },
      413,
      "body_too_large",
    );
  });

  test("every fault of a submission is listed at once, by pointers", async () => {
    const answer = await stack.post(path, {
      input: flow(),
      version: 2,
      priority: 1001,
      delay_ms: -1,
      expires_in_ms: "soon",
      cache: "yes",
      metadata: [],
      "a/b~c": 1,
      prioritty: 1,
    });
    const body = assertProblem(answer, 422, "invalid_request");
    expect(pointersOf(body)).toEqual(
      ["/a~1b~0c", "/cache", "/delay_ms", "/expires_in_ms", "/metadata", "/prioritty", "/priority", "/version"].sort(),
    );
    for (const { detail } of body.errors) expect(detail).toMatch(/\S/);
  });

  test("an unknown field does not hide other faults", async () => {
    const misspelt = assertProblem(await stack.post(path, { inptu: flow() }), 422, "invalid_request");
    expect(pointersOf(misspelt)).toEqual(["/inptu", "/input"]);
    const body = { input: flow(), extra: 1, expires_in_ms: 5, delay_ms: 10, metadata: { a: "x".repeat(5000) } };
    const three = assertProblem(await stack.post(path, body), 422, "invalid_request");
    expect(pointersOf(three)).toEqual(["/expires_in_ms", "/extra", "/metadata"]);
  });

  test.each<[string, unknown, string]>([
    ["a missing input", {}, "/input"],
    ["priority -1", { input: flow(), priority: -1 }, "/priority"],
    ["priority 1.5", { input: flow(), priority: 1.5 }, "/priority"],
    ["an expiry equal to the delay", { input: flow(), delay_ms: 100, expires_in_ms: 100 }, "/expires_in_ms"],
    ["metadata beyond 4 KiB", { input: flow(), metadata: { a: "x".repeat(4090) } }, "/metadata"],
    ["metadata that is not an object", { input: flow(), metadata: "a" }, "/metadata"],
    ["deeply nested metadata", { input: flow(), metadata: { a: nested(40) } }, "/metadata"],
    ["a body that is not an object", [1], ""],
    ["a body that is null", null, ""],
    ["a field from Object.prototype", JSON.parse(`{"input":[1],"__proto__":1}`), "/__proto__"],
  ])("%s is refused with its pointer", async (_what, body, pointer) => {
    const problem = assertProblem(await stack.post(path, body), 422, "invalid_request");
    expect(pointersOf(problem)).toEqual([pointer]);
  });

  test("a body nested deeper than 64 levels is refused before it is parsed", async () => {
    const deep = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
    for (const text of [`{"input":${deep(5000)}}`, `{"input":{"x":${deep(100_000)}}}`.slice(0, 19_000), deep(65)]) {
      assertProblem(await stack.call("POST", path, { text, headers: json }), 422, "invalid_request");
    }
    const shallow = await stack.call("POST", path, { text: `{"input":${deep(63)}}`, headers: json });
    assertProblem(shallow, 422, "invalid_input");
  });

  test.each<[string, string, string]>([
    ["of the body", '{"input":[1],"input":[2]}', "/input"],
    ["spelled in two ways", '{"input":[1],"\\u0069nput":[2]}', "/input"],
    ["of a feature", '{"input":{"a":1,"b":2,"a":3}}', ""],
    ["of metadata", '{"input":[1],"metadata":{"a":{"b":1,"b":1}}}', ""],
    ["without a character", '{"input":{"":1,"":2}}', ""],
  ])("a duplicate key is refused: one %s", async (_what, text, pointer) => {
    const problem = assertProblem(await stack.call("POST", path, { text, headers: json }), 422, "invalid_request");
    expect(pointersOf(problem)).toEqual([pointer]);
    expect(problem.detail).toMatch(/Duplicate key/);
  });

  test("metadata of exactly 4 KiB is accepted", async () => {
    const metadata = { ü: "ü".repeat((4096 - JSON.stringify({ uu: "" }).length) / 2) };
    expect(Buffer.byteLength(JSON.stringify(metadata))).toBeGreaterThan(4094);
    const { metadata: returned } = await stack.submit(model, flow(), { metadata });
    expect(returned).toEqual(metadata);
  });

  test("metadata is returned unchanged, also with names that are special in JavaScript", async () => {
    const text = `{"__proto__":{"a":1},"constructor":null,"toString":[]}`;
    const submission = { text: `{"input":${JSON.stringify(flow())},"metadata":${text}}`, headers: json };
    const accepted = await stack.call("POST", path, submission);
    const read = await stack.get(`/v1/predictions/${accepted.body.id}`);
    expect(JSON.stringify(accepted.body.metadata)).toBe(text);
    expect(JSON.stringify(read.body.metadata)).toBe(text);
  });

  test("a full queue answers 429 with Retry-After, for its own model only", async () => {
    const input = { x: [[1, 2, 3]] };
    for (let i = 0; i < 3; i++) await stack.submit("echo-float32", input, { delay_ms: i === 2 ? 60_000 : 0 });
    const answer = await stack.post("/v1/models/echo-float32/predictions", { input });
    assertProblem(answer, 429, "queue_full");
    expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
    await stack.submit("echo-float64", input);
    const { body } = await stack.get("/v1/models/echo-float32");
    expect(body.queue).toMatchObject({ waiting: 2, scheduled: 1 });
  });

  test("a valid X-Request-Id is returned, any other is replaced", async () => {
    const echoed = await stack.get("/v1/nothing", { headers: { "x-request-id": "job-42/a:b" } });
    expect(assertProblem(echoed, 404, "not_found").request_id).toBe("job-42/a:b");
    for (const bad of ["with space", "x".repeat(129), "<b>"]) {
      const made = await stack.get("/v1/nothing", { headers: { "x-request-id": bad } });
      expect(assertProblem(made, 404, "not_found").request_id).not.toBe(bad);
    }
    const fine = await stack.get("/v1/models", { headers: { "x-request-id": "job-43" } });
    expect(fine.headers.get("x-request-id")).toBe("job-43");
  });
});

const nested = (depth: number): unknown => JSON.parse("[".repeat(depth) + "]".repeat(depth));
