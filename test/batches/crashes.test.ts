import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterEach, describe, expect, test } from "vitest";
import {
  batchKeys,
  counts,
  finalBatch,
  ndjson,
  openUpload,
  resultsOf,
  runBatch,
  submitBatch,
  upload,
} from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { volume } from "../support/run/volume.js";
import { busyWorker, peakBytes, runNotes } from "../support/stack/processes.js";
import { shortLocks, TestStack } from "../support/stack/stack.js";

const echo = "echo-float32";
const table = { kind: "tabular", input: { tensor: "x", features: ["a", "b", "c"] }, batching: { bulk_rows: 4 } };
const rowsOf = (count: number) => Array.from({ length: count }, (_, i) => [i, i + 0.5, -i - 1]);

/** Kinds of keys of an unfinished upload of many chunks; inputs of chunks that have run are not kept. */
const stagedKinds = ["batch", "batch-lines", "batch-results"];
const kills = volume(3, 5);
/** Rows of the batch whose workers are killed. */
const total = volume(360, 600);
const kindsOf = (keys: readonly string[]) =>
  keys.flatMap((key) => /\/(batch(?:-(?!chunks)\w+)?):/.exec(key)?.[1] ?? []).sort();

describe("a batch and killed processes", () => {
  let stack: TestStack;

  afterEach(() => stack?.close());

  test(`survives ${kills} killed workers: every row once, with its own output, and no keys left`, async () => {
    stack = await TestStack.start({
      models: ["slow"],
      manifests: { slow: { kind: "tensor", batching: { max_batch_rows: 4 } } },
      workers: 2,
      timing: shortLocks,
    });
    const inputs = Array.from({ length: total }, (_, i) => ({ x: [[10 + (i % 17)], [i % 10]] }));
    const { id } = await submitBatch(stack, "slow", ndjson(inputs));
    const done = async () => (await stack.get(`/v1/batches/${id}`)).body.counts;
    const started: Promise<unknown>[] = [];
    let seen = 0;
    for (let killed = 0; killed < kills; killed++) {
      await eventually(async () => expect((await done()).succeeded).toBeGreaterThan(seen));
      const victim = await busyWorker(stack.workers);
      victim.child.kill("SIGKILL");
      expect(await victim.exited).toBe("SIGKILL");
      const { failed, pending, succeeded, ...rest } = await done();
      expect([succeeded + failed + pending, rest.total, failed]).toEqual([total, total, 0]);
      expect(succeeded).toBeGreaterThanOrEqual(seen);
      expect(pending).toBeGreaterThan(0);
      seen = succeeded;
      started.push(stack.startWorker());
    }
    await Promise.all(started);
    const final = await finalBatch(stack, id);
    expect(final).toMatchObject({ status: "succeeded", counts: counts(total) });
    expect(await resultsOf(stack, id)).toEqual(
      inputs.map(({ x }, index) => ({ index, status: "succeeded", output: { y: x }, error: null })),
    );
    const keys = modelKeys(stack.prefix, "slow");
    expect(Number(await stack.redis.get(keys.bulkRows))).toBe(0);
    expect(await batchKeys(stack, "slow")).toEqual([keys.batch(id), keys.batchLines(id), keys.batchResults(id)].sort());
    await eventually(async () => {
      expect(await runNotes(stack, "slow")).toEqual(new Map());
      expect(await stack.redis.hlen(keys.deaths)).toBe(0);
      expect(await stack.redis.llen(`${keys.batchQueue}active`)).toBe(0);
    });
  });

  test("leaves no batch if the API is killed during its upload, and no keys once its chunks expire", async () => {
    stack = await TestStack.start({ models: [echo], manifests: { [echo]: table } });
    const doomed = await stack.startApi({ BATCH_UPLOAD_KEEP_SECONDS: "5" });
    const open = openUpload(stack, echo, { url: doomed.url });
    await open.write(ndjson(rowsOf(50)));
    // Chunks run as they arrive, and their outputs must expire like the rest.
    await eventually(async () => expect(kindsOf(await batchKeys(stack, echo))).toEqual(stagedKinds));
    for (const key of await batchKeys(stack, echo)) expect(await stack.redis.pttl(key)).toBeGreaterThan(0);
    doomed.child.kill("SIGKILL");
    await doomed.exited;
    await eventually(async () => expect(await batchKeys(stack, echo)).toEqual([]));
    expect((await stack.get("/v1/batches")).body).toEqual({ data: [], next_cursor: null });
    expect(await stack.redis.get(modelKeys(stack.prefix, echo).bulkRows)).toBeNull();
  });

  test("is refused if its upload pauses for longer than uploads are kept, and leaves nothing", async () => {
    stack = await TestStack.start({
      models: [echo],
      manifests: { [echo]: table },
      env: { BATCH_UPLOAD_KEEP_SECONDS: "2" },
    });
    const paused = openUpload(stack, echo);
    await paused.write(ndjson(rowsOf(8)));
    await eventually(async () => expect(await batchKeys(stack, echo)).not.toEqual([]));
    await eventually(async () => expect(await batchKeys(stack, echo)).toEqual([]));
    paused.end(ndjson(rowsOf(8)));
    const problem = await paused.answer;
    assertProblem(problem, 503, "redis_unavailable");
    expect(problem.headers.get("retry-after")).not.toBeNull();
    expect(await batchKeys(stack, echo)).toEqual([]);
  });

  test("is kept while bytes of its upload arrive, however long a chunk takes to fill", async () => {
    stack = await TestStack.start({
      models: [echo],
      manifests: { [echo]: table },
      env: { BATCH_UPLOAD_KEEP_SECONDS: "10" },
    });
    /** Time of the first expiry of a key. */
    const expiresAt = async () => {
      const now = Date.now();
      const keys = await batchKeys(stack, echo);
      expect(kindsOf(keys)).toEqual(stagedKinds);
      return now + Math.min(...(await Promise.all(keys.map((key) => stack.redis.pttl(key)))));
    };
    const steady = openUpload(stack, echo);
    await steady.write(ndjson(rowsOf(8)));
    const first = await eventually(expiresAt);
    await eventually(async () => {
      await steady.write(" ");
      expect(await expiresAt()).toBeGreaterThan(first + 2000);
    });
    steady.end("\n");
    const { body, status } = await steady.answer;
    expect(status, JSON.stringify(body)).toBe(202);
    expect((await finalBatch(stack, body.id)).counts).toEqual(counts(8, 1));
  });

  test("leaves no run note of a chunk that returns to the queue after the batch was canceled", async () => {
    stack = await TestStack.start({ models: ["slow"], timing: shortLocks });
    const { id } = await submitBatch(stack, "slow", ndjson([{ x: [[20_000]] }]));
    await eventually(async () => expect([...(await runNotes(stack, "slow")).keys()]).toEqual([`${id}-0`]));
    const [worker] = stack.workers as [TestStack["workers"][number]];
    worker.child.kill("SIGKILL");
    await worker.exited;
    const { body } = await stack.call("POST", `/v1/batches/${id}/cancel`);
    expect(body).toMatchObject({ status: "canceled", counts: { total: 1, canceled: 1, pending: 0 } });
    await stack.startWorker();
    await eventually(async () => expect(await runNotes(stack, "slow")).toEqual(new Map()));
    expect(await resultsOf(stack, id)).toEqual([{ index: 0, status: "canceled", output: null, error: null }]);
  });
});

describe("a batch while Redis is full or unreachable", () => {
  let redis: OwnRedis;
  let stack: TestStack;

  afterEach(async () => {
    await stack?.close();
    await redis?.close();
  });

  test("is refused or accepted as a whole, whatever fails at its commit", async () => {
    redis = await OwnRedis.start();
    // Lets Redis itself refuse, rather than the API's own limit.
    const env = { MAX_REDIS_MEMORY_PART: "1" };
    // A busy machine is not a Redis that is away.
    const timing = { api: { redisCommandMs: 4000 } };
    stack = await TestStack.start({ models: [echo], manifests: { [echo]: table }, redisUrl: redis.url, env, timing });
    const { body: batch } = await upload(stack, echo, ndjson(rowsOf(8)));
    await finalBatch(stack, batch.id);
    let before = await batchKeys(stack, echo);
    const staged = async () => (await batchKeys(stack, echo)).filter((key) => !before.includes(key));
    const ranChunks = async () => {
      const results = (await staged()).find((key) => key.includes("/batch-results:"));
      return results === undefined ? 0 : await stack.redis.hlen(results);
    };
    const setMaxMemory = (bytes: number) => stack.redis.call("CONFIG", "SET", "maxmemory", String(bytes));
    // The API checks Redis' memory once a second.
    const freeMemory = async () => {
      await setMaxMemory(0);
      await eventually(async () => {
        const { body } = await stack.post(`/v1/models/${echo}/predictions`, { input: [1, 2, 3] });
        expect(body.code).toBeUndefined();
      });
    };

    // Redis is full during the upload: nothing is left, even before the expiry. The worker is stopped, because chunks
    // that have run would free memory.
    const [worker] = stack.workers as [TestStack["workers"][number]];
    worker.child.kill("SIGSTOP");
    const used = Number(
      /used_memory:(\d+)/.exec(await (stack.redis as { info(s: string): Promise<string> }).info("memory"))?.[1],
    );
    await setMaxMemory(used + 5e5);
    const arriving = await upload(stack, echo, ndjson(rowsOf(50_000)));
    assertProblem(arriving, 503, "redis_full");
    expect(arriving.headers.get("retry-after")).not.toBeNull();
    expect(await staged()).toEqual([]);
    await freeMemory();
    worker.child.kill("SIGCONT");
    // Chunks run before the commit only if a worker is alive.
    await eventually(async () => expect((await stack.get(`/v1/models/${echo}`)).body.workers_alive).toBe(1));

    // Redis is full at the commit: the 8 rows are two chunks that have already run, so that only the commit remains.
    const complete = openUpload(stack, echo, { headers: { "idempotency-key": "once" } });
    await complete.write(ndjson(rowsOf(8)));
    await eventually(async () => expect(await ranChunks()).toBe(2));
    await setMaxMemory(1);
    complete.end();
    assertProblem(await complete.answer, 503, "redis_full");
    assertProblem(await stack.post(`/v1/models/${echo}/predictions`, { input: [1, 2, 3] }), 503, "redis_full");
    expect(await staged()).toEqual([]);
    await freeMemory();
    const again = await upload(stack, echo, ndjson(rowsOf(8)), { headers: { "idempotency-key": "once" } });
    expect([again.status, again.headers.get("idempotency-replayed")]).toEqual([202, null]);
    await finalBatch(stack, again.body.id);

    // No answer to the commit: it may still happen, and then the batch is complete.
    const listed = async () => (await stack.get("/v1/batches")).body.data;
    const known = (await listed()).length;
    before = await batchKeys(stack, echo);
    const uncertain = openUpload(stack, echo);
    await uncertain.write(ndjson(rowsOf(8)));
    await eventually(async () => expect(await ranChunks()).toBe(2));
    process.kill(redis.pid, "SIGSTOP");
    try {
      uncertain.end();
      assertProblem(await uncertain.answer, 503, "redis_unavailable");
    } finally {
      process.kill(redis.pid, "SIGCONT");
    }
    const [late] = await eventually(async () => {
      const all = await listed();
      expect(all).toHaveLength(known + 1);
      return all;
    });
    expect(await finalBatch(stack, late.id)).toMatchObject({ status: "succeeded", counts: counts(8) });

    // Redis is silent during the upload: the API stops reading instead of buffering.
    const [api] = stack.apis as [TestStack["apis"][number]];
    const peak = peakBytes(api.pid);
    const flood = openUpload(stack, echo);
    await flood.write(ndjson(rowsOf(8)));
    process.kill(redis.pid, "SIGSTOP");
    let answered = false;
    flood.answer.then(() => {
      answered = true;
    });
    try {
      const lines = Buffer.from(ndjson(rowsOf(20_000)));
      for (let sent = 0; !answered && sent < 200e6; sent += lines.length) await flood.write(lines);
      assertProblem(await flood.answer, 503, "redis_unavailable");
    } finally {
      process.kill(redis.pid, "SIGCONT");
    }
    expect(peakBytes(api.pid) - peak).toBeLessThan(60e6);
    flood.hangUp();
    await eventually(async () => expect((await stack.get("/v1/models")).status).toBe(200));
    expect((await runBatch(stack, echo, ndjson(rowsOf(9)))).batch.counts).toEqual(counts(9));
  });
});
