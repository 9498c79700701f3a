import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { modelKeys, storedKey } from "@millrace/shared/redis/keys.js";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { flow } from "../support/stack/flows.js";
import { type Answer, type CallOptions, keys, TestStack } from "../support/stack/stack.js";

const [tensors, tree, anomaly, intent, image, throwing] = [
  "echo-float32",
  "intrusion-decision-tree",
  "transaction-anomaly",
  "intent-banking77",
  "deepfake-image",
  "throws-on-row",
] as const;
const pictures = fileURLToPath(new URL("../fixtures/images/untouched", import.meta.url));
const resultTtlSeconds = 3600;
const maxmemory = 1_000_000_000;

/** What retries refer to: made before any limit is reached. */
interface Made {
  canceled: string;
  failedBatch: string;
}

type Send = (options: CallOptions) => ReturnType<TestStack["call"]>;

/** Every way by which new work comes in, with more than one row where it may have more. */
const ways = (stack: TestStack, made: Made, picture: Buffer): Record<string, { send: Send; model: string }> => {
  const json =
    (path: string, body: unknown): Send =>
    (options) =>
      stack.post(path, body, options);
  const text =
    (path: string, type: string, body: string): Send =>
    (options) =>
      stack.call("POST", path, { ...options, text: body, headers: { ...options.headers, "content-type": type } });
  const rows = [
    [1, 2, 3],
    [4, 5, 6],
  ];
  const input = { name: "x", datatype: "FP32", shape: [2, 3] };
  const boundary = "a-boundary";
  const file = Buffer.concat([
    Buffer.from(`--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n`),
    picture,
    Buffer.from(`\r\n--${boundary}--\r\n`),
  ]);
  const bytes = Buffer.from(new Float32Array(rows.flat()).buffer);
  const head = Buffer.from(JSON.stringify({ inputs: [{ ...input, parameters: { binary_data_size: bytes.length } }] }));
  const raw =
    (path: string, type: string, body: Buffer, headers: Record<string, string> = {}): Send =>
    async (options) => {
      const { as, url = stack.url } = options;
      const key = as === null ? {} : { authorization: `Bearer ${keys[as ?? "alice"]}` };
      const sent = {
        method: "POST",
        headers: { ...key, ...headers, "content-type": type },
        body: new Uint8Array(body),
      };
      const response = await fetch(`${url}${path}`, sent);
      return { status: response.status, headers: response.headers, body: await response.json() };
    };
  return {
    "a prediction": { model: tree, send: json(`/v1/models/${tree}/predictions`, { input: flow(), cache: false }) },
    "a prediction of tensors": {
      model: tensors,
      send: json(`/v1/models/${tensors}/predictions`, { input: { x: rows }, cache: false }),
    },
    "a batch as JSON": {
      model: tensors,
      send: json(`/v1/models/${tensors}/batches`, { inputs: [{ x: rows }, { x: rows }] }),
    },
    "a batch as NDJSON": {
      model: tree,
      send: text(`/v1/models/${tree}/batches`, "application/x-ndjson", `${JSON.stringify(flow())}\n`.repeat(2)),
    },
    "a retry": { model: tensors, send: json(`/v1/predictions/${made.canceled}/retry`, undefined) },
    "a retry of a batch": { model: throwing, send: json(`/v1/batches/${made.failedBatch}/retry`, undefined) },
    "a redrive": { model: throwing, send: json("/v1/failures/redrive", { model: throwing }) },
    "/v2 as JSON": {
      model: tensors,
      send: json(`/v2/models/${tensors}/infer`, { inputs: [{ ...input, data: rows.flat() }] }),
    },
    "/v2 with bytes": {
      model: tensors,
      send: raw(`/v2/models/${tensors}/infer`, "application/octet-stream", Buffer.concat([head, bytes]), {
        "inference-header-content-length": String(head.length),
      }),
    },
    "/predict": { model: tree, send: json("/predict", { features: flow(), model_name: "decision_tree" }) },
    "/predict/batch": {
      model: tree,
      send: json("/predict/batch", {
        flows: [{ features: flow() }, { features: flow() }],
        model_name: "decision_tree",
      }),
    },
    "/predict/intent": { model: intent, send: json("/predict/intent", { query: "where is my card" }) },
    "/predict/anomaly": {
      model: anomaly,
      send: json("/predict/anomaly", { amount: 10, date: "2026-01-02T03:04:05Z" }),
    },
    "/infer": { model: image, send: raw("/infer", `multipart/form-data; boundary=${boundary}`, file) },
  };
};

const names = Object.keys(ways({ url: "" } as TestStack, { canceled: "", failedBatch: "" }, Buffer.alloc(0)));

describe("every way in has every limit", () => {
  let redis: OwnRedis;
  let stack: TestStack;
  let table: ReturnType<typeof ways>;
  const urls = { requests: "", rows: "", drowning: "" };

  beforeAll(async () => {
    redis = await OwnRedis.start(["--maxmemory", String(maxmemory)]);
    stack = await TestStack.start({
      models: [tensors, tree, anomaly, intent, image, throwing],
      redisUrl: redis.url,
      env: { RESULT_TTL_SECONDS: String(resultTtlSeconds), MAX_OWNER_PART: "0.5", SYNC_TIMEOUT_SECONDS: "5" },
    });
    urls.requests = (await stack.startApi({ RATE_LIMIT_PER_MINUTE: "1" })).url;
    urls.rows = (await stack.startApi({ RATE_LIMIT_ROWS_PER_MINUTE: "1" })).url;
    // Any lateness of a timer is too much for it, that of one that is early as well.
    urls.drowning = (await stack.startApi({}, { overloadLagMs: -1000 })).url;
    const { id: canceled } = await stack.submit(
      tensors,
      {
        x: [
          [1, 2, 3],
          [4, 5, 6],
        ],
      },
      { delay_ms: 600_000 },
    );
    expect((await stack.post(`/v1/predictions/${canceled}/cancel`, undefined)).status).toBe(200);
    const bad = { inputs: ["no input", "no input"] };
    const { body } = await stack.post(`/v1/models/${throwing}/batches`, bad);
    await eventually(async () => expect((await stack.get(`/v1/batches/${body.id}`)).body.status).toBe("failed"));
    const failing = await stack.predict(throwing, { x: [[97]] });
    expect(failing.body.status).toBe("failed");
    const [picture] = await readdir(pictures);
    table = ways(stack, { canceled, failedBatch: body.id }, await readFile(join(pictures, picture as string)));
  }, 120_000);
  afterAll(async () => {
    await stack?.close();
    await redis?.close();
  });

  const send = (name: string, options: CallOptions = {}) => (table[name] as { send: Send }).send(options);
  const admin = () => stack.redis as Redis;

  describe.each(names)("%s", (name) => {
    test("wants a key, and one that may predict", async () => {
      assertProblem(await send(name, { as: null }), 401, "unauthenticated");
      assertProblem(await send(name, { as: "reader" }), 403, "forbidden");
    });

    test("is shed by an API that lags", async () => {
      assertProblem(await send(name, { url: urls.drowning }), 503, "overloaded");
    });

    test("counts as a request", async () => {
      await stack.get("/v1/models", { url: urls.requests });
      assertProblem(await send(name, { url: urls.requests }), 429, "rate_limited");
    });

    test("counts its rows", async () => {
      // The one row of a minute.
      await stack.post(
        `/v1/models/${tensors}/predictions`,
        { input: { x: [[0, 0, 0]] }, cache: false },
        { url: urls.rows },
      );
      const answer = await send(name, { url: urls.rows });
      // A redrive takes its rows as it goes.
      if (name === "a redrive") expect([202, 409, 422]).toContain(answer.status);
      else assertProblem(answer, 429, "rate_limited");
    });
  });

  test("each row of a tensor counts, in a prediction and in its retry", async () => {
    const { url } = await stack.startApi({ RATE_LIMIT_ROWS_PER_MINUTE: "100" });
    await stack.redis.unlink(...((await stack.redis.keys(`${stack.prefix}:limit:rows:*`)) as string[]), "none");
    const left = ({ headers }: Answer) => Number(/"rows";r=(\d+)/.exec(headers.get("ratelimit") ?? "")?.[1]);
    const input = { x: Array.from({ length: 60 }, (_, i) => [i, 1, 2]) };
    const body = { input, cache: false, delay_ms: 600_000 };
    const first = await stack.post(`/v1/models/${tensors}/predictions`, body, { url });
    expect(first.status).toBe(202);
    expect(left(first)).toBeLessThanOrEqual(42);
    await stack.post(`/v1/predictions/${first.body.id}/cancel`, undefined);
    assertProblem(await stack.post(`/v1/predictions/${first.body.id}/retry`, undefined, { url }), 429, "rate_limited");
  });

  describe("while Redis has used its part of the memory", () => {
    beforeAll(async () => {
      const used = Number(/^used_memory:(\d+)/m.exec(await admin().info("memory"))?.[1]);
      await admin().config("SET", "maxmemory", Math.round(used / 0.9));
      await eventually(async () => expect((await stack.get("/ready", { as: null })).body.turning_away).not.toEqual([]));
    });
    afterAll(async () => {
      await admin().config("SET", "maxmemory", maxmemory);
      await eventually(async () => expect((await stack.get("/ready", { as: null })).body.turning_away).toEqual([]));
    });

    test.each(names)("%s is refused", async (name) => {
      assertProblem(await send(name), 429, "memory_pressure");
    });
  });

  describe("while the owner has used the own part of the memory", () => {
    /** As the counters of all processes would have it. */
    const setStored = async (bytes: number) => {
      const seconds = Math.ceil(resultTtlSeconds / 24);
      const [now] = (await admin().time()).map(Number) as [number, number];
      await admin().hset(storedKey(stack.prefix, seconds, Math.floor(now / seconds)), "alice", bytes);
    };
    beforeAll(async () => {
      await setStored(maxmemory);
      await eventually(async () => {
        assertProblem(await send("a prediction"), 429, "memory_pressure");
      });
    });
    afterAll(async () => {
      await setStored(0);
      await eventually(async () => expect((await send("a prediction")).status).toBe(202));
    });

    test.each(names)("%s is refused", async (name) => {
      const answer = await send(name);
      assertProblem(answer, 429, "memory_pressure");
      expect(answer.body.detail).toContain("MAX_OWNER_PART");
    });
  });

  describe("while the queue of its model is full of rows", () => {
    /** As so many waiting predictions and batches would have it. */
    const setWaiting = async (rows: number) => {
      for (const { model } of Object.values(table)) {
        const keys = modelKeys(stack.prefix, model);
        await admin().hset(keys.waitingLoad, "rows", rows);
        await admin().set(keys.bulkRows, rows);
      }
    };
    beforeAll(() => setWaiting(2 ** 40));
    afterAll(() => setWaiting(0));

    // A redrive is accepted, and waits until there is room.
    test.each(names.filter((name) => name !== "a redrive"))("%s is refused", async (name) => {
      // A worker that has taken the last job of a queue sets its load to none.
      await eventually(async () => {
        await setWaiting(2 ** 40);
        assertProblem(await send(name), 429, "queue_full");
      });
    });
  });
});
