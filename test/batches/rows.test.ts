import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { counts, finalBatch, ndjson, resultsOf, runBatch, submitBatch, types } from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { volume } from "../support/run/volume.js";
import { childrenOf } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";

const echo = "echo-float32";
const names = ["a", "b", "c"];
const deadly = { kind: "tensor", timeout_ms: 1000, batching: { max_batch_rows: 8 } };
const manifests = {
  [echo]: { kind: "tabular", input: { tensor: "x", features: ["a", { name: "b", max: 1e6 }, "c"] } },
  "endless-on-one": { ...deadly, batching: { max_batch_rows: 2 } },
  "crashes-on-zero": { ...deadly, timeout_ms: 10_000 },
  "throws-on-row": { kind: "tensor", batching: { max_batch_rows: 16 } },
  slow: { kind: "tensor", timeout_ms: 600, batching: { max_batch_rows: 1 } },
};

/** Malformed lines of JSON, with the code of each. */
const broken: ((i: number) => [line: string, code: "malformed_json" | "invalid_input"])[] = [
  (i) => [`[${i},1]`, "invalid_input"],
  (i) => [`[${i},1,2,3]`, "invalid_input"],
  (i) => [`[${i},1,"2"]`, "invalid_input"],
  (i) => [`[${i},null,2]`, "invalid_input"],
  (i) => [`[${i},true,2]`, "invalid_input"],
  (i) => [`[${i},[1],2]`, "invalid_input"],
  (i) => [`[${i},1e39,2]`, "invalid_input"],
  (i) => [`[${i},-1e400,2]`, "invalid_input"],
  (i) => [`[${i},${1e6 + i + 1},2]`, "invalid_input"],
  (i) => [`{"a":${i},"b":1}`, "invalid_input"],
  (i) => [`{"a":${i},"b":1,"c":2,"d":3}`, "invalid_input"],
  (i) => [`{"a":${i},"b":1,"C":2}`, "invalid_input"],
  (i) => [`${i}`, "invalid_input"],
  (i) => [`"row ${i}"`, "invalid_input"],
  () => ["null", "invalid_input"],
  () => ["[]", "invalid_input"],
  () => ["{}", "invalid_input"],
  (i) => [`[[${i},1,2]]`, "invalid_input"],
  (i) => [`[${i},1,2`, "malformed_json"],
  (i) => [`${i},1,2]`, "malformed_json"],
  (i) => [`[${i},1,2]]`, "malformed_json"],
  (i) => [`[${i},1,2],`, "malformed_json"],
  (i) => [`[${i},1,,2]`, "malformed_json"],
  (i) => [`[${i},1,2.]`, "malformed_json"],
  (i) => [`[${i},1,+2]`, "malformed_json"],
  (i) => [`[${i},1,NaN]`, "malformed_json"],
  (i) => [`[${i} 1 2]`, "malformed_json"],
  (i) => [`{"a":${i},"b":1,"c":}`, "malformed_json"],
  (i) => [`{'a':${i},'b':1,'c':2}`, "malformed_json"],
  (i) => [`row ${i}`, "malformed_json"],
  (i) => [`\u0000[${i},1,2]`, "malformed_json"],
  (i) => [`[${i},1,2] [${i},1,2]`, "malformed_json"],
];

const total = volume(20_000, 100_000);

describe("rows of a batch", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: Object.keys(manifests), manifests, slots: 2 });
  });
  afterAll(() => stack?.close());

  test(`of ${total}, every hundredth malformed in its own way: these fail alone, each with its reason`, async () => {
    const lines: string[] = [];
    const codes = new Map<number, string>();
    for (let i = 0; i < total; i++) {
      if (i % 100 !== 99) lines.push(i % 3 === 0 ? `{"a":${i},"b":0.5,"c":${-i}}` : `[${i},0.5,${-i}]`);
      else {
        const [line, code] = (broken[((i / 100) % broken.length) | 0] as (typeof broken)[number])(i);
        lines.push(line);
        codes.set(i, code);
      }
    }
    const { batch, results } = await runBatch(stack, echo, lines.join("\n"));
    expect(batch).toMatchObject({ status: "partial", counts: counts(total - total / 100, total / 100), progress: 1 });
    expect(results).toHaveLength(total);
    let faults = 0;
    for (const [i, { error, index, output, status }] of results.entries()) {
      const code = codes.get(i);
      if (code === undefined) {
        // Compared by hand, because 100,000 expectations take a minute.
        const [a, b, c] = output?.y[0] ?? [];
        if (index === i && status === "succeeded" && a === i && b === 0.5 && c === -i && error === null) continue;
      } else if (index === i && status === "failed" && output === null && error.code === code && error.detail !== "") {
        faults += 1;
        continue;
      }
      expect.fail(`line ${i}, ${lines[i]}: ${JSON.stringify(results[i])}`);
    }
    expect(faults).toBe(total / 100);
  });

  test("that are all invalid fail the batch without a run", async () => {
    const { batch, results } = await runBatch(stack, echo, ndjson([1, 2, 3]));
    expect(batch).toMatchObject({ status: "failed", counts: counts(0, 3) });
    expect(results.map(({ status }) => status)).toEqual(["failed", "failed", "failed"]);
    const { batch: csv } = await runBatch(stack, echo, `${names}\nx,y,z\n1,2\n`, { type: types.csv });
    expect(csv).toMatchObject({ status: "failed", counts: counts(0, 2) });
  });

  test("a row that makes the model throw fails alone, with the model's reason and no file path", async () => {
    const values = Array.from({ length: 50 }, (_, i) => (i === 13 || i === 40 ? 77 : i % 9));
    const { batch, results } = await runBatch(
      stack,
      "throws-on-row",
      ndjson(values.map((value) => ({ x: [[value]] }))),
    );
    expect(batch).toMatchObject({ status: "partial", counts: counts(48, 2) });
    for (const [i, { error, output }] of results.entries()) {
      if (values[i] !== 77) expect(output).toEqual({ y: [[1.5 * (values[i] as number)]] });
      else {
        expect(error.code).toBe("inference_failed");
        expect(error.detail).not.toMatch(/\/\w|\.onnx|node_modules/);
      }
    }
  });

  test("a row whose run never returns fails alone, and the worker continues with all its slots", async () => {
    const values = [5, 6, 7, 8, 9, 1, 3, 4, 5, 6];
    const { batch, results } = await runBatch(
      stack,
      "endless-on-one",
      ndjson(values.map((value) => ({ x: [[value]] }))),
    );
    expect(batch).toMatchObject({ status: "partial", counts: counts(9, 1) });
    expect(results.map(({ error, output }) => error?.code ?? output.y[0][0])).toEqual(
      values.map((value) => (value === 1 ? "timeout" : value)),
    );
    const [worker] = stack.workers as [TestStack["workers"][number]];
    await eventually(async () => expect(await childrenOf(worker.pid)).toHaveLength(2));
    expect(stack.logged("worker ready")).toHaveLength(1);
  });

  // Only x86 traps on this model's division.
  test.skipIf(process.arch !== "x64")("a row that kills its process fails alone", async () => {
    const values = [1, 2, 4, 5, 8, 10, 20, 0, 25, 40, 50, 100, 125];
    const { batch, results } = await runBatch(
      stack,
      "crashes-on-zero",
      ndjson(values.map((value) => ({ x: [[value]] }))),
    );
    expect(batch).toMatchObject({ status: "partial", counts: counts(12, 1) });
    expect(results.map(({ error, output }) => error?.code ?? output.y[0][0])).toEqual(
      values.map((value) => (value === 0 ? "poisoned" : 1000 / value)),
    );
  });

  test("that failed can be retried as a new batch with their first indexes, again and again", async () => {
    const inputs = [[1, 2, 3], "bad", [4, 5, 6], [7, 8], [9, 9, 9]];
    const { id } = await runBatch(stack, echo, `${ndjson(inputs)}no JSON`, {
      query: "?metadata=%7B%22night%22%3A7%7D",
    });
    const retried = await stack.call("POST", `/v1/batches/${id}/retry`);
    expect(retried.status, JSON.stringify(retried.body)).toBe(202);
    expect(retried.headers.get("location")).toBe(`/v1/batches/${retried.body.id}`);
    expect(retried.body).toMatchObject({ retry_of: id, metadata: { night: 7 }, model: echo, version: "1" });
    const final = await finalBatch(stack, retried.body.id);
    expect(final).toMatchObject({ status: "failed", counts: counts(0, 3) });
    const found = await resultsOf(stack, final.id);
    expect(found.map(({ error, first_index, index }) => [index, first_index, error.code])).toEqual([
      [0, 1, "invalid_input"],
      [1, 3, "invalid_input"],
      [2, 5, "malformed_json"],
    ]);
    const again = await stack.call("POST", `/v1/batches/${final.id}/retry`);
    const last = await finalBatch(stack, again.body.id);
    expect(last.retry_of).toBe(final.id);
    expect((await resultsOf(stack, last.id)).map(({ first_index }) => first_index)).toEqual([1, 3, 5]);
    const { id: good } = await runBatch(stack, echo, ndjson([[1, 2, 3]]));
    assertProblem(await stack.call("POST", `/v1/batches/${good}/retry`), 409, "state_conflict");
  });

  test("that failed succeed in the new batch once the cause is fixed, each with its own output", async () => {
    const values = Array.from({ length: 6 }, (_, i) => (i === 2 || i === 5 ? 1800 + i : i));
    const { batch, id } = await runBatch(stack, "slow", ndjson(values.map((value) => ({ x: [[value]] }))));
    expect(batch).toMatchObject({ status: "partial", counts: counts(4, 2) });
    expect(
      (await resultsOf(stack, id)).filter(({ error }) => error?.code === "timeout").map(({ index }) => index),
    ).toEqual([2, 5]);
    const file = join(stack.modelsDir, "slow", "model.json");
    await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, "utf8")), timeout_ms: 60_000 }));
    await stack.workers[0]?.stop();
    const open = await submitBatch(stack, "slow", ndjson([{ x: [[1]] }]));
    assertProblem(await stack.call("POST", `/v1/batches/${open.id}/retry`), 409, "state_conflict");
    await stack.startWorker();
    const retried = await stack.call("POST", `/v1/batches/${id}/retry`);
    expect(await finalBatch(stack, retried.body.id)).toMatchObject({ status: "succeeded", counts: counts(2) });
    expect(await resultsOf(stack, retried.body.id)).toEqual(
      [2, 5].map((first_index, index) => ({
        index,
        first_index,
        status: "succeeded",
        output: { y: [[1800 + first_index]] },
        error: null,
      })),
    );
  });
});
