import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TestStack } from "../support/stack/stack.js";

const key = "a-key-for-metrics";

describe("METRICS_KEY", () => {
  let stack: TestStack;
  let urls: string[];
  const statusOf = async (url: string, headers: Record<string, string> = {}) => (await fetch(url, { headers })).status;

  beforeAll(async () => {
    stack = await TestStack.start({ models: ["echo-float32"], env: { METRICS_KEY: key } });
    urls = [`${stack.url}/metrics`, `http://127.0.0.1:${stack.workers[0]?.port}/metrics`];
  });
  afterAll(() => stack.close());

  test("opens the metrics of API and worker, by either header; nothing else does, an admin's key neither", async () => {
    for (const url of urls) {
      expect(await statusOf(url, { authorization: `Bearer ${key}` })).toBe(200);
      expect(await statusOf(url, { authorization: `bearer ${key}` })).toBe(200);
      expect(await statusOf(url, { "x-api-key": key })).toBe(200);
      for (const wrong of ["", `${key}x`, key.slice(1), key.toUpperCase(), "admin-key"]) {
        expect(await statusOf(url, { authorization: `Bearer ${wrong}` }), wrong).toBe(401);
        expect(await statusOf(url, { "x-api-key": wrong }), wrong).toBe(401);
      }
      expect(await statusOf(url)).toBe(401);
    }
    expect(stack.logged("key refused")).toContainEqual(
      expect.objectContaining({ audit: true, path: "/metrics", reason: "no key for metrics" }),
    );
    expect(JSON.stringify(stack.log)).not.toContain(key);
  });

  test("is no key of the API, and health and readiness of both stay open without one", async () => {
    expect(await statusOf(`${stack.url}/v1/models`, { authorization: `Bearer ${key}` })).toBe(401);
    for (const url of urls) {
      for (const path of ["health", "ready"]) expect(await statusOf(url.replace("metrics", path))).toBe(200);
    }
  });
});

describe("WORKER_HOST", () => {
  test.skipIf(process.platform !== "linux")(
    "keeps the worker's port to this machine unless it says otherwise",
    async () => {
      const stack = await TestStack.start({ models: ["echo-float32"], apis: 0 });
      try {
        // Another address of the same machine, which a port on all addresses would answer.
        const reaches = (port: number) => statusAt(`http://127.0.0.2:${port}/health`);
        expect(await reaches(stack.workers[0]?.port as number)).toBe(null);
        const open = await stack.startWorker({ WORKER_HOST: "0.0.0.0" });
        expect(await reaches(open.port)).toBe(200);
      } finally {
        await stack.close();
      }
    },
  );

  const statusAt = (url: string) =>
    fetch(url).then(
      ({ status }) => status,
      () => null,
    );
});
