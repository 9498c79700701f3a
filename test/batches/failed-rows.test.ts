import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openUpload } from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { TestStack } from "../support/stack/stack.js";

const model = "row-sums";
const features = ["a", "b"];
const manifest = {
  kind: "tabular",
  input: { tensor: "x", features },
  output: { head: "raw" },
  batching: { bulk_rows: 16 },
};

const valid = "[1,2]\n";
const invalid = '["x",2]\n';

describe("a batch with max_failed_rows", () => {
  let stack: TestStack;
  beforeAll(async () => {
    stack = await TestStack.start({ models: [model, "slow"], manifests: { [model]: manifest } });
  });
  afterAll(async () => {
    await stack?.close();
  });

  async function ended(rows: string, query: string) {
    const upload = openUpload(stack, model, { query });
    upload.end(rows);
    const { body, status } = await upload.answer;
    expect(status, JSON.stringify(body)).toBe(202);
    const { body: batch } = await stack.get(`/v1/batches/${body.id}?wait=30`);
    expect(batch.finished_at).not.toBeNull();
    return batch;
  }

  const mixed = (faults: number) => invalid.repeat(faults) + valid.repeat(1000 - faults);

  test.each([
    ["?max_failed_rows=0", 0, "succeeded"],
    ["?max_failed_rows=0", 1, "failed"],
    ["?max_failed_rows=20", 20, "partial"],
    ["?max_failed_rows=20", 21, "failed"],
    ["?max_failed_rows=0.05", 50, "partial"],
    ["?max_failed_rows=0.05", 51, "failed"],
    ["", 500, "partial"],
  ])("%s with %i of 1000 rows that fail ends as %s", async (query, faults, status) => {
    const batch = await ended(mixed(faults), query);
    expect(batch.status).toBe(status);
    const { canceled, failed, pending, succeeded, total } = batch.counts;
    expect([total, pending, succeeded + failed + canceled]).toEqual([1000, 0, 1000]);
    if (status === "failed") expect(canceled).toBeGreaterThan(0);
    else expect([failed, canceled]).toEqual([faults, 0]);
  });

  test("keeps the results of rows that ran before its end, and reports the others as canceled", async () => {
    const batch = await ended(valid.repeat(64) + mixed(900), "?max_failed_rows=10");
    const results = await stack.get(`/v1/batches/${batch.id}/results`, { headers: { accept: "application/x-ndjson" } });
    const lines = String(results.body).trimEnd().split("\n");
    const statuses = lines.map((line) => JSON.parse(line).status as string);
    expect(statuses).toHaveLength(1064);
    const { canceled, failed, succeeded } = batch.counts;
    const count = (status: string) => statuses.filter((each) => each === status).length;
    expect([count("canceled"), count("failed"), count("succeeded")]).toEqual([canceled, failed, succeeded]);
  });

  test("counts it in the body of JSON too, and frees the queue of its rows and bytes", async () => {
    const inputs = Array.from({ length: 400 }, () => ["x", 1]);
    const accepted = await stack.post(`/v1/models/${model}/batches`, { inputs, max_failed_rows: 5 });
    expect(accepted.status).toBe(202);
    const { body } = await stack.get(`/v1/batches/${accepted.body.id}?wait=30`);
    expect(body.status).toBe("failed");
    await eventually(async () => {
      const held = (await stack.redis.keys(`${stack.prefix}:*/bulk-*-of`)) as string[];
      expect(held).toEqual([]);
    });
  });

  test.each(["-1", "1.5", "x", "", "1e3", "99999999999"])("max_failed_rows=%s is refused", async (text) => {
    const upload = openUpload(stack, model, { query: `?max_failed_rows=${text}` });
    upload.end(valid);
    const { body, status } = await upload.answer;
    expect([status, body.code]).toEqual([400, "bad_query"]);
    expect(body.detail).toContain("max_failed_rows");
  });
});
