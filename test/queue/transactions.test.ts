import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { hasData, inParallel, readReference, readRows } from "../support/read-data.js";
import { manifestOf } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const model = "transaction-anomaly";

describe("transaction-anomaly", () => {
  let stack: TestStack;
  const ask = (json: unknown) => stack.post("/predict/anomaly", json);

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model] });
  });
  afterAll(() => stack?.close());

  test("the documented request gets an answer in the field names of its existing clients", async () => {
    const { threshold } = manifestOf(model).output;
    const small = await ask({ amount: 42.5, date: "2026-01-31" });
    expect(small.status, JSON.stringify(small.body)).toBe(200);
    expect(Object.keys(small.body)).toEqual(["is_anomaly", "score", "threshold", "inference_time_ms", "prediction_id"]);
    expect(small.body).toMatchObject({ is_anomaly: false, threshold });
    const [payment, fraud] = manifestOf(model).samples;
    expect((await ask(payment.input)).body).toMatchObject({ is_anomaly: false });
    const flagged = await ask(fraud.input);
    expect(flagged.body).toMatchObject({ is_anomaly: true });
    expect(flagged.body.score).toBeGreaterThanOrEqual(threshold);
    const { body } = await stack.get(`/v1/predictions/${flagged.body.prediction_id}`);
    const { is_anomaly, score } = flagged.body;
    expect(body).toMatchObject({ status: "succeeded", model, output: { is_anomaly, score, threshold } });
  });

  test("missing fields get their defaults, and of a date the time of day in UTC counts", async () => {
    const score = async (json: object) => (await stack.predict(model, json)).body.output.score;
    const { input } = manifestOf(model).samples[1];
    const { v14, ...rest } = input;
    expect(await score({ ...rest, v14: 0 })).toBe(await score(rest));
    expect(await score(rest)).not.toBe(await score(input));
    const at = (date: string) => score({ ...rest, date });
    expect(await at("2013-09-01T09:30:00Z")).toBe(await at("2026-03-05T11:30:00+02:00"));
    expect(await at("2013-09-01T09:30:00Z")).not.toBe(await at("2013-09-01T02:30:00Z"));
    expect(await at("2013-09-01T00:00:00Z")).toBe(await at("1969-12-31"));
  });

  test("all invalid fields are listed at once", async () => {
    const refused = await ask({ amount: -1, date: "yesterday", v1: "0", v28: null, v29: 1 });
    const body = assertProblem(refused, 422, "invalid_input");
    expect(pointersOf(body)).toEqual(["/amount", "/date", "/v1", "/v28", "/v29"]);
    expect(pointersOf(assertProblem(await ask({}), 422, "invalid_input"))).toEqual(["/amount", "/date"]);
    for (const amount of ["1000000.5", "1e400", "null", '"1"']) {
      const text = `{"amount":${amount},"date":"2026-01-31"}`;
      const headers = { "content-type": "application/json" };
      const answer = await stack.call("POST", "/predict/anomaly", { text, headers });
      expect(pointersOf(assertProblem(answer, 422, "invalid_input")), text).toEqual(["/amount"]);
    }
    for (const date of ["2026-02-30", "2025-02-29", "2026-01-31T24:00:01Z", "2026-01-31T00:00:00+25:00"]) {
      expect(pointersOf(assertProblem(await ask({ amount: 1, date }), 422, "invalid_input")), date).toEqual(["/date"]);
    }
    expect((await ask({ amount: 0, date: "2026-01-31" })).status).toBe(200);
    expect((await ask({ amount: 1_000_000, date: "2026-01-31T23:59:59.5-11:00" })).status).toBe(200);
  });

  test.skipIf(!hasData("creditcard"))(
    "held-out payments: ROC AUC of 0.95 or more, and within 1e-5 of the training library",
    async () => {
      const { about, rows: expected } = readReference(model, 1);
      const rows = about.rows as number[];
      const [header = [], ...payments] = readRows("creditcard/creditcard_sample_492fraud.csv.gz");
      const scored: { score: number; fraud: boolean }[] = [];
      let worst = 0;
      await inParallel(rows.length, async (i) => {
        const payment = payments[rows[i] as number] as string[];
        const field = (name: string) => Number(payment[header.indexOf(name)]);
        const components = Array.from({ length: 28 }, (_, v) => [`v${v + 1}`, field(`V${v + 1}`)]);
        const date = new Date(Date.UTC(2013, 8, 1) + field("Time") * 1000).toISOString();
        const answer = await ask({ amount: field("Amount"), date, ...Object.fromEntries(components) });
        expect(answer.status, JSON.stringify(answer.body)).toBe(200);
        scored.push({ score: answer.body.score, fraud: field("Class") === 1 });
        worst = Math.max(worst, Math.abs(answer.body.score - ((expected[i] as Float32Array)[0] as number)));
      });
      expect(scored).toHaveLength(rows.length);
      expect(worst).toBeLessThanOrEqual(1e-5);
      expect(areaUnderCurve(scored)).toBeGreaterThanOrEqual(0.95);
    },
  );
});

/** ROC AUC: the share of pairs in which the fraud scores above the other payment; a tie counts half. */
function areaUnderCurve(scored: readonly { score: number; fraud: boolean }[]): number {
  const frauds = scored.filter(({ fraud }) => fraud);
  const others = scored.filter(({ fraud }) => !fraud);
  let above = 0;
  for (const { score } of frauds) {
    for (const other of others) above += score > other.score ? 1 : score === other.score ? 0.5 : 0;
  }
  return above / (frauds.length * others.length);
}
