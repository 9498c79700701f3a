import { failureCodes } from "@millrace/shared/service/failure-codes.js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sendRaw } from "../support/http/raw-http.js";
import { flow, manifestOf } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";
import { tree, wire } from "./request.js";

/** Seeded, so that a run in CI fails because of a change, not by chance. */
const runs = { numRuns: 80, seed: 20261121, endOnFailure: true };

const features: string[] = manifestOf(tree).input.features;
const id = fc.oneof(fc.string({ maxLength: 40 }), fc.stringMatching(/^[0-9a-hjkmnp-tv-z]{28}$/));

/** Values close to valid ones, and arbitrary ones. */
const anything = fc.jsonValue({ maxDepth: 6, stringUnit: "binary" });
const input = fc.oneof(
  anything,
  fc.array(fc.oneof(fc.double(), anything), { minLength: 76, maxLength: 80 }),
  fc.dictionary(fc.oneof(fc.constantFrom(...features), fc.string()), fc.oneof(fc.double(), anything), { maxKeys: 90 }),
  fc.record({ x: fc.array(fc.array(fc.oneof(fc.double(), anything))) }),
  fc.constant(flow()),
);
const options = {
  version: fc.oneof(anything, fc.constant("1")),
  priority: fc.oneof(anything, fc.integer()),
  delay_ms: fc.oneof(anything, fc.integer()),
  expires_in_ms: fc.oneof(anything, fc.integer()),
  cache: fc.oneof(anything, fc.boolean()),
  metadata: fc.oneof(anything, fc.dictionary(fc.string(), anything)),
  webhook: fc.oneof(anything, fc.record({ url: fc.webUrl(), events: anything }, { requiredKeys: ["url"] })),
};
const submission = fc.oneof(anything, fc.record({ input, ...options }, { requiredKeys: [] }));
const upload = fc.oneof(
  anything,
  fc.record({ inputs: fc.oneof(anything, fc.array(input)), ...options }, { requiredKeys: [] }),
);

const time = fc.date({ noInvalidDate: true }).map((date) => date.toISOString());
const redrive = fc.oneof(
  anything,
  fc.record(
    {
      model: fc.oneof(anything, fc.constant(tree)),
      code: fc.oneof(anything, fc.constantFrom(...failureCodes)),
      failed_after: fc.oneof(anything, fc.date().map(String), time),
      failed_before: fc.oneof(anything, time),
      rate: fc.oneof(anything, fc.double()),
    },
    { requiredKeys: [] },
  ),
);

describe("arbitrary requests", () => {
  let stack: TestStack;
  beforeAll(async () => {
    stack = await TestStack.start({ models: [tree, "echo-float32"] });
  });
  afterAll(() => stack.close());

  /** Sends a request and asserts that the answer is in time, not a 5xx, and a problem from 400 on. */
  const assertHandled = async (method: string, target: string, body: string | Buffer, type = "application/json") => {
    const answer = await sendRaw(stack.url, wire(method, target, { body, type }), { deadlineMs: 20_000 });
    expect(answer.status, answer.body).toBeGreaterThanOrEqual(200);
    expect(answer.status, answer.body).toBeLessThan(500);
    if (answer.status < 400) return;
    expect(answer.headers.get("content-type")).toMatch(/^application\/problem\+json/);
    expect(JSON.parse(answer.body)).toMatchObject({ status: answer.status, code: expect.stringMatching(/^[a-z_]+$/) });
  };
  const checkAll = <T>(arbitrary: fc.Arbitrary<T>, check: (value: T) => Promise<void>) =>
    fc.assert(fc.asyncProperty(arbitrary, check), runs);
  const part = encodeURIComponent;

  test("submissions of any JSON are accepted or refused with a problem", () =>
    checkAll(fc.tuple(fc.constantFrom(tree, "echo-float32"), submission), ([model, body]) =>
      assertHandled("POST", `/v1/models/${model}/predictions`, JSON.stringify(body) ?? "null"),
    ));

  test("batches of any JSON are accepted or refused with a problem", () =>
    checkAll(fc.tuple(fc.constantFrom(tree, "echo-float32"), upload), ([model, body]) =>
      assertHandled("POST", `/v1/models/${model}/batches`, JSON.stringify(body) ?? "null"),
    ));

  test("redrives of any JSON are accepted or refused with a problem", () =>
    checkAll(redrive, (body) => assertHandled("POST", "/v1/failures/redrive", JSON.stringify(body) ?? "null")));

  test("batches of any lines are accepted or refused with a problem", () =>
    checkAll(
      fc.array(
        fc.oneof(
          input.map((value) => JSON.stringify(value) ?? ""),
          fc.string(),
        ),
      ),
      (rows) => assertHandled("POST", `/v1/models/${tree}/batches`, rows.join("\n"), "application/x-ndjson"),
    ));

  test("batches of any CSV are accepted or refused with a problem", () =>
    checkAll(
      fc.array(
        fc.array(fc.oneof(fc.string(), fc.double().map(String), fc.constantFrom(...features)), { maxLength: 80 }),
      ),
      (rows) =>
        assertHandled("POST", `/v1/models/${tree}/batches`, rows.map((row) => row.join(",")).join("\n"), "text/csv"),
    ));

  test("bodies of any bytes and type are accepted or refused with a problem", () =>
    checkAll(
      fc.tuple(
        fc.constantFrom("predictions", "batches"),
        fc.uint8Array({ maxLength: 2000 }),
        fc.constantFrom("application/json", "application/x-ndjson", "text/csv", "text/plain"),
      ),
      ([what, bytes, type]) => assertHandled("POST", `/v1/models/${tree}/${what}`, Buffer.from(bytes), type),
    ));

  test("any path, query and headers are answered without a 5xx", () =>
    checkAll(
      fc.tuple(
        fc.constantFrom("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"),
        fc.oneof(
          fc.array(fc.string(), { maxLength: 5 }).map((parts) => `/${parts.map(part).join("/")}`),
          fc
            .tuple(fc.constantFrom("predictions", "batches", "deliveries", "models", "failures/redrives"), id)
            .map(([kind, text]) => `/v1/${kind}/${part(text)}`),
          fc
            .tuple(
              fc.constantFrom("predictions", "batches"),
              id,
              fc.constantFrom("events", "cancel", "retry", "results", "deliveries"),
            )
            .map(([kind, text, act]) => `/v1/${kind}/${part(text)}/${act}`),
          fc.constantFrom(
            "/",
            "/health",
            "/ready",
            "/metrics",
            "/v1/models",
            "/v1/predictions",
            "/v1/batches",
            "/v1/failures",
            "/v1/failures/redrive",
            "/v1/failures/redrives",
            "/admin/queues",
          ),
        ),
        fc.dictionary(
          fc.oneof(fc.constantFrom("wait", "limit", "cursor", "status", "model", "code", "from"), fc.string()),
          fc.string(),
          { maxKeys: 3 },
        ),
        anything,
      ),
      async ([method, path, query, body]) => {
        const pairs = Object.entries(query).map(([name, value]) => `${part(name)}=${part(value)}`);
        await assertHandled(
          method,
          `${path}${pairs.length > 0 ? `?${pairs.join("&")}` : ""}`,
          JSON.stringify(body) ?? "",
        );
      },
    ));

  test("leave the service working", async () => {
    expect((await stack.predict(tree, flow(3))).body.status).toBe("succeeded");
    expect(stack.log.filter(({ level }) => level === "error")).toEqual([]);
  });
});
