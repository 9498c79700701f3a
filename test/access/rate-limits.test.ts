import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { flow } from "../support/stack/flows.js";
import { type CallOptions, TestStack } from "../support/stack/stack.js";

const model = "intrusion-decision-tree";
const path = `/v1/models/${model}`;

/** A parameter of one limit in a `RateLimit` or `RateLimit-Policy` header. */
const parameterOf = (header: string | null, limit: string, parameter: string): number => {
  const item = (header ?? "").split(", ").find((text) => text.startsWith(`"${limit}"`)) ?? "";
  return Number(new RegExp(`;${parameter}=(\\d+)`).exec(item)?.[1] ?? Number.NaN);
};

describe("rate limits", () => {
  let stack: TestStack;
  let redis: OwnRedis;
  const second = (): CallOptions => ({ url: stack.apis[1]?.url as string });
  const rows = (count: number) => Array.from({ length: count }, () => JSON.stringify(flow())).join("\n");
  const upload = (count: number, options: CallOptions = {}) =>
    stack.call("POST", `${path}/batches`, {
      text: rows(count),
      ...options,
      headers: { "content-type": "application/x-ndjson" },
    });

  beforeAll(async () => {
    redis = await OwnRedis.start();
    stack = await TestStack.start({
      models: [model],
      apis: 2,
      redisUrl: redis.url,
      env: {
        RATE_LIMIT_PER_MINUTE: "20",
        RATE_LIMIT_ROWS_PER_MINUTE: "100",
        FAILED_LOGINS_PER_MINUTE: "5",
        TRUST_PROXY: "1",
      },
    });
  });
  afterAll(async () => {
    await stack.close();
    await redis.close();
  });

  test("every answer to a key has its limits and the remaining quota", async () => {
    const { headers, status } = await stack.get("/v1/models", { as: "reader" });
    expect(status).toBe(200);
    expect(headers.get("ratelimit-policy")).toBe('"requests";q=20;w=60');
    expect(headers.get("ratelimit")).toMatch(/^"requests";r=19;t=\d+$/);
    const unknown = await stack.get("/v1/nothing", { as: "reader" });
    expect(parameterOf(unknown.headers.get("ratelimit"), "requests", "r")).toBeLessThanOrEqual(18);
    expect((await stack.get("/health", { as: null })).headers.get("ratelimit")).toBeNull();
  });

  test("all APIs share a key's limit; requests beyond it are refused for that key only", async () => {
    let taken = 0;
    for (let i = 0; i < 60; i++) {
      const answer = await stack.get("/v1/models", { as: "bob", ...(i % 2 === 0 ? second() : {}) });
      if (answer.status === 200) taken += 1;
      else {
        assertProblem(answer, 429, "rate_limited");
        expect(Number(answer.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
        expect(parameterOf(answer.headers.get("ratelimit"), "requests", "r")).toBe(0);
        expect(parameterOf(answer.headers.get("ratelimit-policy"), "requests", "q")).toBe(20);
      }
    }
    // The limit refills by one every three seconds during the loop.
    expect(taken).toBeGreaterThanOrEqual(20);
    expect(taken).toBeLessThan(50);
    expect((await stack.get("/v1/models", { as: "alice" })).status).toBe(200);
  });

  test("rows of batches count; a refused batch uses none; one above the whole limit is always refused", async () => {
    const first = await upload(60);
    expect(first.status, JSON.stringify(first.body)).toBe(202);
    expect(parameterOf(first.headers.get("ratelimit"), "rows", "r")).toBeLessThanOrEqual(45);
    const refused = await upload(60, second());
    assertProblem(refused, 429, "rate_limited");
    const waitSeconds = Number(refused.headers.get("retry-after"));
    expect(waitSeconds).toBeGreaterThan(0);
    expect(waitSeconds).toBeLessThanOrEqual(13);
    expect((await upload(35)).status).toBe(202);
    assertProblem(await upload(101, { as: "admin" }), 429, "rate_limited");
    const single = await stack.predict(model, flow(), {}, { as: "admin" });
    expect(single.status).toBe(200);
    expect(parameterOf(single.headers.get("ratelimit"), "rows", "r")).toBe(99);
    expect((await stack.get("/v1/batches")).body.data).toHaveLength(2);
  });

  test("the rate of a redrive stays within the row limit of its key", async () => {
    const redrive = (json: object) => stack.post("/v1/failures/redrive", json, { as: "admin" });
    expect(pointersOf(assertProblem(await redrive({ rate: 2 }), 422, "invalid_request"))).toEqual(["/rate"]);
    expect(await redrive({})).toMatchObject({ status: 202, body: { rate: 1.666 } });
  });

  test("an address that guesses keys is refused further guesses, but not valid keys used from it before", async () => {
    const guess = (key: string, options: CallOptions = {}) =>
      stack.get("/v1/models", { as: null, headers: { "x-api-key": key }, ...options });
    expect((await guess("admin-key")).status).toBe(200);
    const statuses: number[] = [];
    for (let i = 0; i < 7; i++) statuses.push((await guess(`guess-${i}`)).status);
    expect(statuses.slice(0, 5)).toEqual(Array(5).fill(401));
    expect(statuses).toContain(429);
    expect((await guess("admin-key")).status).toBe(200);
    // These keys were never used from this address on this API, so they might be guesses.
    const other = (await stack.startApi()).url;
    assertProblem(await guess("guess-x", { url: other }), 429, "rate_limited");
    assertProblem(await guess("alice-key", { url: other }), 429, "rate_limited");
    expect((await stack.get("/health", { as: null })).status).toBe(200);
  });

  test("behind a trusted proxy the address that it adds counts, not those claimed by the caller", async () => {
    const from = (forwarded: string, key: string) =>
      stack.get("/v1/models", { as: null, headers: { "x-api-key": key, "x-forwarded-for": forwarded } });
    const statuses: number[] = [];
    for (let i = 0; i < 7; i++) statuses.push((await from(`10.0.0.${i}, 203.0.113.5`, `guess-${i}`)).status);
    expect(statuses.slice(0, 5)).toEqual(Array(5).fill(401));
    expect(statuses).toContain(429);
    expect((await from("203.0.113.6", "alice-key")).status).toBe(200);
    // A caller with one address of an IPv6 network usually has the whole network.
    for (let i = 0; i < 7; i++) statuses.push((await from(`2001:db8:1:2::${i}`, `guess-${i}`)).status);
    expect(statuses.slice(7)).toContain(429);
    expect((await from("2001:db8:1:3::1", "guess")).status).toBe(401);
  });

  test("while Redis is unreachable no request passes, and guesses are still counted", async () => {
    await redis.kill();
    assertProblem(await stack.get("/v1/models", { as: "admin" }), 503, "redis_unavailable");
    const { url } = stack.apis[1] as (typeof stack.apis)[1];
    const statuses = [];
    for (let i = 0; i < 12; i++) {
      statuses.push((await stack.get("/v1/models", { as: null, headers: { "x-api-key": `g${i}` }, url })).status);
    }
    expect(statuses.every((status) => status === 401 || status === 429)).toBe(true);
    expect(statuses).toContain(429);
    await redis.resume();
  });
});
