import { readApiConfig } from "@millrace/shared/config/api-config.js";
import { readWorkerConfig } from "@millrace/shared/config/worker-config.js";
import { expect, test } from "vitest";

// Tests hand in shorter ones (test/support/stack); these are the times that users get.
const api = { redisDeadlineMs: 10_000, noticesRereadMs: 15_000 };
const worker = {
  lockMs: 5000,
  stalledCheckMs: 1000,
  redisDeadlineMs: 30_000,
  breakerOpenMs: 5000,
  deliveryDeadlineMs: 10_000,
  hostPauseMs: 5000,
  versionNoticedMs: 3500,
  versionRetryMs: 5000,
};

test("the product's times are these, whatever the environment says", () => {
  const env = {
    REDIS_URL: "redis://127.0.0.1:6379",
    API_KEYS: `alice:${"a".repeat(64)}`,
    MILLRACE_TEST_TIMING: '{"lockMs":1,"redisDeadlineMs":1}',
  };
  expect(readApiConfig(env).timing).toEqual(api);
  expect(readWorkerConfig(env).timing).toEqual(worker);
});
