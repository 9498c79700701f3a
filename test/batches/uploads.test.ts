import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { deflateSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  batchKeys,
  counts,
  finalBatch,
  ndjson,
  openUpload,
  resultsOf,
  runBatch,
  submitBatch,
  types,
  type UploadOptions,
  upload,
} from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { localWebhooks } from "../support/http/webhook-sink.js";
import { TestStack } from "../support/stack/stack.js";

/** Returns its input, so that each row's output is unique. */
const model = "echo-float32";
const manifest = {
  kind: "tabular",
  input: { tensor: "x", features: ["a", "b, b", { name: 'c"', min: -1e6 }] },
  output: { head: "classifier", probabilities: "y", labels: ["A", "B,\n", 'C"'], activation: "none" },
  batching: { bulk_rows: 4 },
};
const rows = [
  [1, 2, 3],
  [0.1, 1e-7, -0],
  [7, 7, 7],
  [-1, -2, -3.5],
  [16777217, 3.4028234663852886e38, 5],
  [0.25, 0.5, 0.125],
];
const models = fileURLToPath(new URL("../fixtures/models/", import.meta.url));

describe("an upload", () => {
  let stack: TestStack;
  /** URL of an API with low limits. */
  let narrow: string;
  let singles: unknown[];

  beforeAll(async () => {
    stack = await TestStack.start({
      models: [model, "throws-on-row"],
      manifests: { [model]: manifest },
      workers: 0,
      env: { ...localWebhooks, MAX_BODY_BYTES: "20000" },
    });
    for (const [version, name] of ["echo-float32", "echo-string", "echo-float32"].entries()) {
      const to = join(stack.modelsDir, "mixed", String(version + 1));
      await mkdir(to, { recursive: true });
      await cp(join(models, name, "1"), to, { recursive: true });
    }
    const [, api] = await Promise.all([
      stack.startWorker(),
      stack.startApi({ MAX_BATCH_ROWS: "100", MAX_BATCH_BYTES: "30000" }),
    ]);
    narrow = api.url;
    const answers = await Promise.all(rows.map((row) => stack.predict(model, row)));
    singles = answers.map(({ body }) => body.output);
  });
  afterAll(() => stack.close());

  const succeeded = () => singles.map((output, index) => ({ index, status: "succeeded", output, error: null }));
  const objects = rows.map(([a, b, c]) => ({ 'c"': c, a, "b, b": b }));
  const header = 'a,"b, b","c"""';
  const csvRows = rows.map((row) => row.join(","));
  const quotedRows = rows.map(([a, b, c]) => `"${a}", ${b} ,"${c}"`);
  const turned = ['"c""",a,"b, b"', ...rows.map(([a, b, c]) => `${c},${a},${b}`)];

  test.each<[string, string | Buffer, UploadOptions]>([
    ["JSON with arrays", JSON.stringify({ inputs: rows }), { type: types.json }],
    ["JSON with objects, laid out", JSON.stringify({ inputs: objects }, null, 2), { type: types.json }],
    ["JSON of another media type", JSON.stringify({ inputs: rows }), { type: "application/vnd.x+json; charset=utf-8" }],
    ["NDJSON", ndjson(rows), {}],
    ["NDJSON with objects", ndjson(objects), {}],
    ["NDJSON with CRLF", ndjson(rows).replaceAll("\n", "\r\n"), {}],
    ["NDJSON with a byte order mark", `\ufeff${ndjson(rows)}`, {}],
    ["NDJSON without the last line end", ndjson(rows).trimEnd(), {}],
    ["NDJSON with empty lines", `\n${ndjson(rows).replaceAll("\n", "\n\r\n")}\n`, {}],
    ["NDJSON by its other name", ndjson(rows), { type: "application/jsonl" }],
    ["NDJSON in gzip", gzipSync(ndjson(rows)), { headers: { "content-encoding": "gzip" } }],
    ["NDJSON in deflate", deflateSync(ndjson(rows)), { headers: { "content-encoding": "deflate" } }],
    [
      "JSON in gzip",
      gzipSync(JSON.stringify({ inputs: rows })),
      { type: types.json, headers: { "content-encoding": "x-gzip" } },
    ],
    ["CSV", [header, ...csvRows, ""].join("\n"), { type: types.csv }],
    ["CSV with CRLF and a byte order mark", `\ufeff${[header, ...csvRows, ""].join("\r\n")}`, { type: types.csv }],
    ["CSV without the last line end", [header, ...csvRows].join("\r\n"), { type: "text/csv; header=present" }],
    ["CSV with quotes and spaces", [header, ...quotedRows, "", ""].join("\n"), { type: types.csv }],
    ["CSV in another order", turned.join("\n"), { type: types.csv }],
  ])("of %s gives the results of single predictions", async (_what, body, options) => {
    const { batch, results } = await runBatch(stack, model, body, options);
    expect(batch).toMatchObject({ status: "succeeded", counts: counts(rows.length), progress: 1, eta_ms: null });
    expect(results).toEqual(succeeded());
  });

  test("is answered with the batch in the documented form, and its Location", async () => {
    const begunAt = Date.now();
    const answer = await upload(stack, model, ndjson(rows), {
      query: "?metadata=%7B%22a%22%3A%5B1%5D%7D&priority=3&cache=false",
    });
    expect(answer.status).toBe(202);
    const { id } = answer.body;
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    const path = `/v1/batches/${id}`;
    const shape = {
      id: expect.stringMatching(/^[0-9a-z]{28}$/),
      object: "batch",
      model,
      version: "1",
      model_digest: (await stack.get(`/v1/models/${model}`)).body.versions[0].digest,
      created_at: time,
      metadata: { a: [1] },
      retry_of: null,
      urls: {
        self: path,
        events: `${path}/events`,
        cancel: `${path}/cancel`,
        results: `${path}/results`,
        retry: `${path}/retry`,
      },
    };
    expect(answer.body).toMatchObject({ ...shape, counts: { total: rows.length } });
    expect(answer.headers.get("location")).toBe(path);
    const final = await finalBatch(stack, id);
    expect(final).toEqual({
      ...shape,
      status: "succeeded",
      counts: counts(rows.length),
      progress: 1,
      started_at: time,
      finished_at: time,
      rows_per_second: expect.any(Number),
      eta_ms: null,
    });
    expect(Date.parse(final.finished_at)).toBeGreaterThanOrEqual(Date.parse(final.started_at));
    expect(Date.parse(final.started_at)).toBeGreaterThanOrEqual(Date.parse(final.created_at));
    expect(Date.parse(final.created_at)).toBeGreaterThanOrEqual(begunAt);
    expect(Date.parse(final.finished_at)).toBeLessThanOrEqual(Date.now());
    expect((await stack.get(path)).body).toEqual(final);
    expect((await upload(stack, model, ndjson(rows))).body.status).toMatch(/^(queued|running|succeeded)$/);
  });

  test("may have any number of rows around the size of a chunk", async () => {
    for (const size of [1, 3, 4, 5, 8, 9]) {
      const many = Array.from({ length: size }, (_, i) => [i, -i - 1, 0.5]);
      const { batch, results } = await runBatch(stack, model, ndjson(many));
      expect(batch.counts).toEqual(counts(size));
      expect(results.map(({ output }) => Object.values(output.probabilities))).toEqual(many);
    }
  });

  test("is read for the version before its inputs; a version after them must take the same inputs", async () => {
    const words = [["größe", "", "x"]];
    const send = (body: string) => upload(stack, "mixed", body, { type: types.json });
    const first = await send(JSON.stringify({ version: "2", inputs: [{ x: words }] }));
    expect([first.status, first.body.version]).toEqual([202, "2"]);
    expect(await finalBatch(stack, first.body.id)).toMatchObject({ status: "succeeded" });
    expect((await resultsOf(stack, first.body.id))[0].output).toEqual({ y: words });
    const numbers = [{ x: [[1, 2, 3]] }];
    const behind = await send(JSON.stringify({ inputs: numbers, version: "1" }));
    expect([behind.status, behind.body.version]).toEqual([202, "1"]);
    const late = assertProblem(await send(JSON.stringify({ inputs: numbers, version: "2" })), 422, "invalid_request");
    expect(late.errors).toEqual([
      { detail: expect.stringContaining(`put "version" before "inputs"`), pointer: "/version" },
    ]);
    assertProblem(await send(JSON.stringify({ version: "9", inputs: numbers })), 404, "version_not_found");
    const byQuery = await upload(stack, "mixed", ndjson([{ x: words }]), { query: "?version=2" });
    expect((await finalBatch(stack, byQuery.body.id)).status).toBe("succeeded");
  });

  const json = { type: types.json };
  const csv = { type: types.csv };
  test.each<[string, string | Buffer, UploadOptions, number, string, string?]>([
    ["a JSON body that ends early", '{"inputs":[[1,2,3]', json, 400, "malformed_json"],
    ["a JSON body with a stray comma", '{"inputs":[[1,2,3],]}', json, 400, "malformed_json"],
    ["a JSON body with a malformed row", '{"inputs":[[1,2,3],[1,2,NaN]]}', json, 400, "malformed_json"],
    ["a JSON body with a tail", '{"inputs":[[1,2,3]]} x', json, 400, "malformed_json"],
    ["JSON inputs that are not an array", '{"inputs":"x"}', json, 422, "invalid_request", "/inputs"],
    ["a JSON body without inputs", "{}", json, 422, "invalid_request", "/inputs"],
    ["no inputs in JSON", '{"inputs":[]}', json, 422, "invalid_request"],
    ["an unknown field", '{"inputs":[[1,2,3]],"input":1}', json, 422, "invalid_request", "/input"],
    [
      "metadata beyond 4 KiB",
      JSON.stringify({ inputs: [[1, 2, 3]], metadata: { x: "y".repeat(5000) } }),
      json,
      422,
      "invalid_request",
      "/metadata",
    ],
    [
      "a webhook to a private address",
      '{"inputs":[[1,2,3]],"webhook":{"url":"https://10.0.0.1/"}}',
      json,
      422,
      "invalid_request",
      "/webhook/url",
    ],
    [
      "an event that batches do not have",
      '{"inputs":[[1,2,3]],"webhook":{"url":"http://127.0.0.1/","events":["prediction.completed"]}}',
      json,
      422,
      "invalid_request",
      "/webhook/events/0",
    ],
    ["options of JSON in the query", '{"inputs":[[1,2,3]]}', { ...json, query: "?priority=1" }, 400, "bad_query"],
    ["an unknown query parameter", ndjson(rows), { query: "?delay_ms=1" }, 400, "bad_query"],
    ["metadata in the query that is not JSON", ndjson(rows), { query: "?metadata=%7B" }, 400, "bad_query"],
    ["a priority beyond 1000", ndjson(rows), { query: "?priority=1001" }, 400, "bad_query"],
    ["an unknown version", ndjson(rows), { query: "?version=9" }, 404, "version_not_found"],
    ["no line at all", "\r\n\n", {}, 422, "invalid_request"],
    ["an empty body", "", {}, 422, "invalid_request"],
    ["a CSV header without rows", `${header}\n`, csv, 422, "invalid_request"],
    ["a CSV without a column", `a,"c"""\n1,2\n`, csv, 422, "invalid_request"],
    ["another media type", ndjson(rows), { type: "text/plain" }, 415, "unsupported_media_type"],
    ["another encoding", ndjson(rows), { headers: { "content-encoding": "zstd" } }, 415, "unsupported_media_type"],
    ["a body that is not gzip", ndjson(rows), { headers: { "content-encoding": "gzip" } }, 400, "malformed_body"],
    [
      "gzip that ends early",
      gzipSync(ndjson(rows)).subarray(0, 40),
      { headers: { "content-encoding": "gzip" } },
      400,
      "malformed_body",
    ],
    ["a client that does not accept JSON", ndjson(rows), { headers: { accept: "text/csv" } }, 406, "not_acceptable"],
    ["a key that may only read", ndjson(rows), { as: "reader" }, 403, "forbidden"],
    [
      "an Idempotency-Key too long",
      ndjson(rows),
      { headers: { "idempotency-key": "k".repeat(300) } },
      400,
      "bad_header",
    ],
  ])("%s is refused and leaves nothing", async (_what, body, options, status, code, pointer) => {
    const before = await batchKeys(stack, model);
    const problem = assertProblem(await upload(stack, model, body, options), status, code);
    if (pointer !== undefined)
      expect(problem.errors.map((error: { pointer: string }) => error.pointer)).toContain(pointer);
    expect((await batchKeys(stack, model)).filter((key) => !before.includes(key))).toEqual([]);
  });

  test("of CSV without required columns is refused with each of them, also if many rows follow", async () => {
    const many = Array.from({ length: 2000 }, () => "1").join("\n");
    const problem = assertProblem(await upload(stack, model, `a\n${many}`, csv), 422, "invalid_request");
    expect(problem.errors.map(({ detail }: { detail: string }) => detail)).toEqual([
      'column "b, b" is missing',
      'column "c"" is missing',
    ]);
    assertProblem(await upload(stack, "throws-on-row", "x\n1\n", csv), 415, "unsupported_media_type");
    assertProblem(await upload(stack, "nobody", ndjson(rows)), 404, "model_not_found");
  });

  test("beyond MAX_BATCH_ROWS is answered 413 before its end", async () => {
    const exactly = Array.from({ length: 100 }, (_, i) => [i, 0, 0]);
    expect((await upload(stack, model, ndjson(exactly), { url: narrow })).status).toBe(202);
    const open = openUpload(stack, model, { url: narrow });
    await open.write(ndjson([...exactly, [0, 0, 0]]));
    expect(assertProblem(await open.answer, 413, "body_too_large").detail).toContain("MAX_BATCH_ROWS");
    open.hangUp();
    const asJson = openUpload(stack, model, { url: narrow, ...json });
    await asJson.write(`{"inputs":[${"[1,2,3],".repeat(102)}`);
    assertProblem(await asJson.answer, 413, "body_too_large");
    asJson.hangUp();
  });

  test("beyond MAX_BATCH_BYTES is answered 413 by its length, or when its unpacked bytes exceed it", async () => {
    const declared = openUpload(stack, model, { url: narrow, headers: { "content-length": "30001" } });
    expect(assertProblem(await declared.answer, 413, "body_too_large").detail).toContain("MAX_BATCH_BYTES");
    declared.hangUp();
    const grows = openUpload(stack, model, { url: narrow });
    await grows.write(`${" ".repeat(15_000)}\n`.repeat(2));
    assertProblem(await grows.answer, 413, "body_too_large");
    grows.hangUp();
    const packed = openUpload(stack, model, { url: narrow, headers: { "content-encoding": "gzip" } });
    await packed.write(gzipSync(`${" ".repeat(15_000)}\n`.repeat(2)));
    assertProblem(await packed.answer, 413, "body_too_large");
    packed.hangUp();
  });

  test("fails only in a row beyond MAX_BODY_BYTES", async () => {
    const long = `[1,2,${"3".repeat(20_001)}]`;
    for (const [body, options] of [
      [`[1,2,3]\n${long}\n[4,5,6]`, {}],
      [`{"inputs":[[1,2,3],${long},[4,5,6]]}`, json],
      [`a,"b, b","c"""\n1,2,3\n1,2,${"3".repeat(20_001)}\n4,5,6`, csv],
    ] as const) {
      const { batch, results } = await runBatch(stack, model, body, options);
      expect(batch).toMatchObject({ status: "partial", counts: counts(2, 1) });
      expect(results.map(({ error }) => error?.code)).toEqual([undefined, "row_too_large", undefined]);
    }
  });

  test("broken off by its client, within or between lines, leaves nothing and logs no error", async () => {
    const begun = await batchKeys(stack, model);
    const staged = async () => (await batchKeys(stack, model)).filter((key) => !begun.includes(key));
    const lines = ndjson(Array.from({ length: 50 }, (_, i) => [i, 0, 0]));
    for (const [body, options] of [
      [lines, {}],
      [`${lines}[1,2`, {}],
      [`{"inputs":[${lines.trimEnd().replaceAll("\n", ",")}`, json],
      [lines, { headers: { "content-length": "100000" } }],
      [gzipSync(lines.repeat(100)).subarray(0, 1500), { headers: { "content-encoding": "gzip" } }],
    ] as const) {
      const open = openUpload(stack, model, options);
      await open.write(body);
      await eventually(async () => expect(await staged()).not.toEqual([]));
      open.hangUp();
      await eventually(async () => expect(await staged()).toEqual([]));
    }
    expect(stack.log.filter(({ level }) => level === "error")).toEqual([]);
    const mine = (await stack.get("/v1/batches?limit=100")).body.data;
    expect(mine.filter((batch: { counts: { total: number } }) => batch.counts.total === 50)).toEqual([]);
  });

  test("runs while it arrives, and is no batch before its end", async () => {
    const many = Array.from({ length: 9 }, (_, i) => [i, -i - 1, 0.5]);
    const open = openUpload(stack, model);
    await open.write(ndjson(many.slice(0, 8)));
    const [results] = await eventually(async () => {
      const found = (await batchKeys(stack, model)).filter((key) => key.includes("/batch-results:"));
      const running = [];
      for (const key of found) if ((await stack.redis.pttl(key)) < 600_000) running.push(key);
      expect(running).toHaveLength(1);
      expect(await stack.redis.hlen(running[0] as string)).toBe(2);
      return running as [string];
    });
    const id = /:([0-9a-z]{28})$/.exec(results)?.[1] as string;
    assertProblem(await stack.get(`/v1/batches/${id}`), 404, "batch_not_found");
    assertProblem(await stack.get(`/v1/batches/${id}/results`), 404, "batch_not_found");
    open.end(ndjson(many.slice(8)));
    const answer = await open.answer;
    expect([answer.status, answer.body.id]).toEqual([202, id]);
    expect(answer.body.counts.succeeded).toBeGreaterThanOrEqual(8);
    const final = await finalBatch(stack, id);
    expect(final).toMatchObject({ status: "succeeded", counts: counts(9) });
    expect(final.rows_per_second).toBeGreaterThan(0);
    const read = await resultsOf(stack, id);
    expect(read.map(({ output }) => Object.values(output.probabilities))).toEqual(many);
  });

  test("its Idempotency-Key replays it on any API, refuses another body, and is the owner's own", async () => {
    const send = (body: string, options: UploadOptions = {}) =>
      upload(stack, model, body, { ...options, headers: { "idempotency-key": "table-1" } });
    const body = ndjson(rows);
    const first = await send(body);
    expect([first.status, first.headers.get("idempotency-replayed")]).toEqual([202, null]);
    for (const again of [await send(body), await send(body, { url: narrow })]) {
      expect([again.status, again.body.id]).toEqual([202, first.body.id]);
      expect(again.headers.get("idempotency-replayed")).toBe("true");
      expect(again.headers.get("location")).toBe(`/v1/batches/${first.body.id}`);
    }
    assertProblem(await send(body.replace("1", "2")), 422, "idempotency_mismatch");
    assertProblem(await send(body, { query: "?priority=2" }), 422, "idempotency_mismatch");
    const bobs = await send(body, { as: "bob" });
    expect(bobs.status).toBe(202);
    expect(bobs.body.id).not.toBe(first.body.id);
    const final = await finalBatch(stack, first.body.id);
    expect((await send(body)).body).toEqual(final);
    // Chunks staged by the replays are removed too.
    await eventually(async () => {
      expect((await batchKeys(stack, model)).filter((key) => key.includes("/batch-chunks:"))).toEqual([]);
    });
  });

  test("of another owner is unknown on every path", async () => {
    const { id } = await submitBatch(stack, model, ndjson([[1, 2, "x"]]));
    await finalBatch(stack, id);
    for (const [method, path] of [
      ["GET", ""],
      ["GET", "?wait=1"],
      ["GET", "/events"],
      ["GET", "/results"],
      ["POST", "/cancel"],
      ["POST", "/retry"],
    ] as const) {
      assertProblem(await stack.call(method, `/v1/batches/${id}${path}`, { as: "bob" }), 404, "batch_not_found");
      assertProblem(await stack.call(method, `/v1/batches/${"0".repeat(28)}${path}`), 404, "batch_not_found");
      assertProblem(await stack.call(method, `/v1/batches/x${path}`), 404, "batch_not_found");
    }
    const listed = await stack.get("/v1/batches?limit=100", { as: "bob" });
    expect(listed.body.data.map((batch: { id: string }) => batch.id)).not.toContain(id);
    assertProblem(await stack.call("POST", `/v1/batches/${id}/cancel`, { as: "reader" }), 403, "forbidden");
    assertProblem(await stack.call("PUT", `/v1/batches/${id}`), 405, "method_not_allowed");
  });

  test("makes a batch that is listed, newest first, in pages, by model and by status", async () => {
    const sent: string[] = [];
    for (const body of [ndjson(rows), ndjson([[1]]), `${ndjson(rows)}x\n`, ndjson(rows)]) {
      const { id } = await submitBatch(stack, model, body, { as: "admin" });
      sent.unshift(id);
    }
    const list = async (query: string) => (await stack.get(`/v1/batches${query}`, { as: "admin" })).body;
    const ids = (page: { data: { id: string }[] }) => page.data.map(({ id }) => id);
    await eventually(async () => {
      const { data } = await list("");
      expect(data.filter((batch: { finished_at: string | null }) => batch.finished_at === null)).toEqual([]);
    });
    const all = await list("");
    expect(ids(all)).toEqual(sent);
    expect(all.next_cursor).toBeNull();
    expect(all.data[0]).toEqual((await stack.get(`/v1/batches/${sent[0]}`, { as: "admin" })).body);
    const first = await list("?limit=3");
    expect(ids(first)).toEqual(sent.slice(0, 3));
    expect(ids(await list(`?limit=3&cursor=${first.next_cursor}`))).toEqual(sent.slice(3));
    expect(ids(await list("?status=failed"))).toEqual([sent[2]]);
    expect(ids(await list("?status=partial"))).toEqual([sent[1]]);
    expect(ids(await list(`?status=succeeded&model=${model}`))).toEqual([sent[0], sent[3]]);
    expect(ids(await list("?model=throws-on-row"))).toEqual([]);
    assertProblem(await stack.get("/v1/batches?status=expired"), 400, "bad_query");
    assertProblem(await stack.get("/v1/batches?model=nobody"), 404, "model_not_found");
  });
});
