import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { counts, finalBatch, ndjson, resultsOf, runBatch, submitBatch } from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { openRequest } from "../support/http/open-request.js";
import { assertProblem } from "../support/http/problem.js";
import { flow } from "../support/stack/flows.js";
import { peakBytes } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const forest = "intrusion-random-forest";
const echo = "echo-float32";
const labels = ["plain", 'with "quotes"', "with, comma"];
const manifests = {
  [echo]: {
    kind: "tabular",
    input: { tensor: "x", features: ["a", "b", "c"] },
    output: { head: "classifier", probabilities: "y", labels, activation: "none" },
    batching: { bulk_rows: 10 },
  },
  "dynamic-inner": {
    kind: "tabular",
    input: { tensor: "x", features: ["a"] },
    output: { head: "regressor", value: "y" },
    batching: { bulk_rows: 10 },
  },
  slow: { kind: "tensor", batching: { max_batch_rows: 2 } },
};
const data = fileURLToPath(new URL("../../../shared/data/cicids2017/", import.meta.url));

/** Every `step`th real flow of each file. */
function realFlows(step: number): number[][] {
  const flows: number[][] = [];
  for (const file of readdirSync(data).sort()) {
    const [header = "", ...lines] = gunzipSync(readFileSync(join(data, file)))
      .toString()
      .trimEnd()
      .split(/\r?\n/);
    const features = header.split(",").filter((name) => name !== "Label").length;
    for (let i = 0; i < lines.length; i += step) {
      flows.push((lines[i] as string).split(",").slice(0, features).map(Number));
    }
  }
  return flows;
}

describe("results of a batch", () => {
  let stack: TestStack;
  /** A batch of 35 rows, every seventh of them malformed. */
  let known: string;
  // biome-ignore lint/suspicious/noExplicitAny: see Answer
  let all: any[];

  beforeAll(async () => {
    stack = await TestStack.start({ models: [tree, forest, echo, "dynamic-inner", "slow"], manifests, slots: 2 });
    const rows = Array.from({ length: 35 }, (_, i) => (i % 7 === 3 ? "broken" : [i, i / 3, 100 - i * i]));
    const { id, results } = await runBatch(stack, echo, ndjson(rows));
    known = id;
    all = results;
  });
  afterAll(() => stack?.close());

  async function assertSameAsSingles(model: string, flows: readonly number[][]): Promise<void> {
    const { batch, results } = await runBatch(stack, model, ndjson(flows));
    expect(batch).toMatchObject({ status: "succeeded", counts: counts(flows.length) });
    const singles: unknown[] = [];
    let next = 0;
    const caller = async () => {
      for (let i = next++; i < flows.length; i = next++) {
        singles[i] = (await stack.predict(model, flows[i])).body.output;
      }
    };
    await Promise.all(Array.from({ length: 32 }, caller));
    expect(results).toEqual(singles.map((output, index) => ({ index, status: "succeeded", output, error: null })));
  }

  test.each([tree, forest])("of %s equal those of single predictions, row by row", async (model) => {
    await assertSameAsSingles(
      model,
      Array.from({ length: 100 }, (_, i) => flow(i * 7919)),
    );
  });

  // The data is not part of the repository; see models/training/README.md.
  test.skipIf(!existsSync(data))("of real flows equal those of single predictions, row by row", async () => {
    const flows = realFlows(100);
    expect(flows.length).toBeGreaterThan(200);
    await assertSameAsSingles(forest, flows);
    await assertSameAsSingles(tree, flows);
  });

  test("of heads other than classifiers equal those of single predictions too", async () => {
    const rows = [[1], [0.1], [-5e10]];
    const { results } = await runBatch(stack, "dynamic-inner", ndjson(rows));
    const singles = await Promise.all(rows.map(async (row) => (await stack.predict("dynamic-inner", row)).body.output));
    expect(results.map(({ output }) => output)).toEqual(singles);
    expect(singles[0]).toEqual({ value: 2 });
  });

  test("are one line per input, in order, each with its own output or error", () => {
    expect(all).toHaveLength(35);
    for (const [i, line] of all.entries()) {
      if (i % 7 === 3) {
        expect(line).toEqual({
          index: i,
          status: "failed",
          output: null,
          error: { code: "invalid_input", detail: expect.stringContaining("expected an array of 3 numbers") },
        });
        continue;
      }
      const probabilities = [i, i / 3, 100 - i * i].map(Math.fround);
      const best = probabilities.indexOf(Math.max(...probabilities));
      expect(line).toEqual({
        index: i,
        status: "succeeded",
        output: {
          label: labels[best],
          confidence: probabilities[best],
          probabilities: Object.fromEntries(labels.map((label, c) => [label, probabilities[c]])),
        },
        error: null,
      });
    }
  });

  test.each([0, 1, 9, 10, 11, 29, 34, 35, 1000])("from %d on are the same lines", async (from) => {
    expect(await resultsOf(stack, known, `?from=${from}`)).toEqual(all.slice(from));
  });

  test("are CSV by Accept, with a column per class, quoted where necessary", async () => {
    const answer = await stack.get(`/v1/batches/${known}/results`, { headers: { accept: "text/csv" } });
    expect(answer.headers.get("content-type")).toMatch(/^text\/csv/);
    const lines = answer.body.split("\r\n");
    expect(lines.shift()).toBe('index,status,label,confidence,plain,"with ""quotes""","with, comma"');
    expect(lines.pop()).toBe("");
    const quoted = ["plain", '"with ""quotes"""', '"with, comma"'];
    expect(lines).toEqual(
      all.map(({ index, output, status }) => {
        if (output === null) return `${index},${status},,,,,`;
        return [
          index,
          status,
          quoted[labels.indexOf(output.label)],
          output.confidence,
          ...Object.values(output.probabilities),
        ].join();
      }),
    );
    const rest = await stack.get(`/v1/batches/${known}/results?from=33`, { headers: { accept: "text/csv" } });
    expect(rest.body.split("\r\n").slice(1, -1)).toEqual(lines.slice(33));
    const { id } = await runBatch(stack, "dynamic-inner", ndjson([[1], ["x"]]));
    const plain = await stack.get(`/v1/batches/${id}/results`, { headers: { accept: "text/csv" } });
    expect(plain.body).toBe('index,status,output\r\n0,succeeded,"{""value"":2}"\r\n1,failed,\r\n');
  });

  test("are JSON pages by Accept, whose cursors lead through all of them", async () => {
    const page = async (query: string) =>
      (await stack.get(`/v1/batches/${known}/results${query}`, { headers: { accept: "application/json" } })).body;
    expect(await page("")).toEqual({ data: all, next_cursor: null });
    const found: unknown[] = [];
    let pages = 0;
    for (let cursor: string | null = "0"; cursor !== null; pages++) {
      const { data, next_cursor } = await page(`?limit=8&cursor=${cursor}`);
      found.push(...data);
      cursor = next_cursor;
    }
    expect(found).toEqual(all);
    expect(pages).toBe(5);
    expect(await page("?from=35")).toEqual({ data: [], next_cursor: null });
  });

  test.each([
    ["?limit=10", {}, 400, "bad_query"],
    ["?from=-1", {}, 400, "bad_query"],
    ["?from=1.5", {}, 400, "bad_query"],
    ["?from=99999999999", {}, 400, "bad_query"],
    ["?from=1&from=2", {}, 400, "bad_query"],
    ["?to=1", {}, 400, "bad_query"],
    ["?limit=0", { accept: "application/json" }, 400, "bad_query"],
    ["?limit=10001", { accept: "application/json" }, 400, "bad_query"],
    ["?cursor=x", { accept: "application/json" }, 400, "bad_query"],
    ["", { accept: "image/png" }, 406, "not_acceptable"],
  ])("by %s %j are refused", async (query, headers, status, code) => {
    assertProblem(await stack.get(`/v1/batches/${known}/results${query}`, { headers }), status, code);
  });

  test("answer HEAD without a body", async () => {
    for (const accept of ["application/x-ndjson", "text/csv", "application/json"]) {
      const answer = await stack.call("HEAD", `/v1/batches/${known}/results`, { headers: { accept } });
      expect([answer.status, answer.body]).toEqual([200, ""]);
      expect(answer.headers.get("content-type")).toContain(accept);
    }
  });

  test("are readable while the batch runs, up to the first gap, and the rest later from the next index", async () => {
    const inputs = Array.from({ length: 60 }, (_, i) => ({ x: [[80 + i]] }));
    const { id } = await submitBatch(stack, "slow", ndjson(inputs));
    const early = await eventually(async () => {
      const found = await resultsOf(stack, id);
      expect(found.length).toBeGreaterThan(0);
      return found;
    });
    const headers = { accept: "application/json" };
    const page = (await stack.get(`/v1/batches/${id}/results?limit=2`, { headers })).body;
    expect(page).toEqual({ data: early.slice(0, 2), next_cursor: "2" });
    const { body: running } = await stack.get(`/v1/batches/${id}`);
    expect(early.length).toBeLessThan(60);
    expect(running).toMatchObject({ status: "running", finished_at: null });
    expect(running.progress).toBeCloseTo((running.counts.succeeded + running.counts.failed) / 60, 3);
    expect(running.eta_ms).toBeGreaterThan(0);
    await finalBatch(stack, id);
    const late = await resultsOf(stack, id, `?from=${early.length}`);
    expect([...early, ...late]).toEqual(
      inputs.map(({ x }, index) => ({ index, status: "succeeded", output: { y: x }, error: null })),
    );
  });

  test("that have expired in part are a 404 or a broken stream, never wrong", async () => {
    const { id } = await runBatch(stack, echo, ndjson(Array.from({ length: 25 }, () => [1, 2, 3])));
    const names = modelKeys(stack.prefix, echo);
    await stack.redis.hdel(names.batchResults(id), "1");
    await expect(resultsOf(stack, id)).rejects.toThrow();
    const headers = { accept: "application/json" };
    assertProblem(await stack.get(`/v1/batches/${id}/results`, { headers }), 404, "batch_not_found");
    await stack.redis.del(names.batchLines(id));
    assertProblem(await stack.get(`/v1/batches/${id}/results`, { headers }), 404, "batch_not_found");
  });

  test("are not buffered for readers who stop reading, while others read on", async () => {
    const flows = Array.from({ length: 50 }, (_, i) => flow(i * 7919));
    const { id } = await submitBatch(stack, tree, ndjson(flows).repeat(400));
    await finalBatch(stack, id);
    const api = stack.apis[0] as TestStack["apis"][number];
    const whole = (await stack.get(`/v1/batches/${id}/results`)).body as string;
    const before = peakBytes(api.pid);
    const url = `${stack.url}/v1/batches/${id}/results`;
    const stalled = Array.from({ length: 40 }, () => openRequest(url));
    const answers = await Promise.all(stalled.map(({ answered }) => answered));
    for (const answer of answers) answer.pause();
    // Meanwhile the same process serves all of this.
    for (let i = 0; i < 5; i++)
      expect(((await stack.get(`/v1/batches/${id}/results`)).body as string).length).toBe(whole.length);
    expect(whole.length * stalled.length).toBeGreaterThan(200e6);
    expect(peakBytes(api.pid) - before).toBeLessThan(90e6);
    const [first] = answers;
    first?.resume();
    expect(await stalled[0]?.body).toBe(whole);
    for (const reader of stalled) reader.hangUp();
    expect((await stack.get("/health", { as: null })).status).toBe(200);
  });
});
