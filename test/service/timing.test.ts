import { readApiConfig } from "@millrace/shared/config/api-config.js";
import { readWorkerConfig } from "@millrace/shared/config/worker-config.js";
import { expect, test } from "vitest";

// The product's timing; tests may set shorter times (test/support/stack).
const api = {
  redisDeadlineMs: 10_000,
  redisCommandMs: 1500,
  noticesRereadMs: 15_000,
  modelsRereadMs: 2000,
  overloadLagMs: 1000,
};
const worker = {
  lockMs: 5000,
  stalledCheckMs: 1000,
  redisDeadlineMs: 30_000,
  breakerOpenMs: 5000,
  deliveryDeadlineMs: 10_000,
  hostPauseMs: 5000,
  versionNoticedMs: 3500,
  versionRetryMs: 5000,
  hangMs: 60_000,
  slowLoadMs: 5000,
  shadowNice: 19,
};

test("the product's timing is fixed, whatever the environment says", () => {
  const env = {
    REDIS_URL: "redis://127.0.0.1:6379",
    API_KEYS: `alice:${"a".repeat(64)}`,
    MILLRACE_TEST_TIMING: '{"lockMs":1,"redisDeadlineMs":1}',
  };
  expect(readApiConfig(env).timing).toEqual(api);
  expect(readWorkerConfig(env).timing).toEqual(worker);
});

test("a killed worker's jobs start again within 7 s, and APIs reread models before a version is unloaded", () => {
  expect(worker.lockMs + worker.stalledCheckMs + 1000).toBeLessThanOrEqual(7000);
  expect(worker.versionNoticedMs).toBeGreaterThan(api.modelsRereadMs);
});
