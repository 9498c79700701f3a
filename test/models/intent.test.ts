import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { hasData, readReference, readRows } from "../support/read-data.js";
import { runBatch } from "../support/run-batch.js";
import { manifestOf } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const model = "intent-banking77";

describe("intent-banking77", () => {
  let stack: TestStack;
  const labels: string[] = manifestOf(model).output.labels;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model] });
  });
  afterAll(() => stack?.close());

  const ask = (query: unknown) => stack.post("/predict/intent", { query });

  test("the documented request gets an answer in the field names of its existing clients", async () => {
    const answer = await ask("  I am still waiting for my new card, where is it?\0 ");
    expect(answer.status, JSON.stringify(answer.body)).toBe(200);
    expect(Object.keys(answer.body)).toEqual([
      "intent",
      "confidence",
      "alternatives",
      "query_length",
      "cached",
      "inference_time_ms",
      "prediction_id",
    ]);
    expect(answer.body).toMatchObject({ intent: "card_arrival", cached: false, query_length: 48 });
    const { alternatives, confidence, prediction_id } = answer.body;
    const confidences = alternatives.map((other: { confidence: number }) => other.confidence);
    expect(confidences).toHaveLength(5);
    expect([confidence, ...confidences]).toEqual([confidence, ...confidences].sort((a, b) => b - a));
    expect(alternatives.every(({ intent }: { intent: string }) => labels.includes(intent))).toBe(true);
    const { body } = await stack.get(`/v1/predictions/${prediction_id}`);
    expect(body).toMatchObject({ status: "succeeded", model, output: { label: "card_arrival", confidence } });
    // The same query with other spaces is answered from the cache.
    expect((await ask("I am still waiting for my new card, where is it?")).body).toMatchObject({
      intent: "card_arrival",
      confidence,
      cached: true,
    });
  });

  test("a query has 1 to 512 characters, trimmed and without NUL", async () => {
    expect((await ask(` ${"😀".repeat(512)}\0\n`)).body).toMatchObject({ query_length: 512 });
    for (const query of ["", " \0\n ", "x".repeat(513), "😀".repeat(513), 7, null, ["x"]]) {
      const answer = await ask(query);
      const code = typeof query === "string" ? "invalid_input" : "invalid_request";
      expect(pointersOf(assertProblem(answer, 422, code)), String(query).slice(0, 20)).toEqual(["/query"]);
    }
    const unknown = await stack.post("/predict/intent", { query: "x", top: 3 });
    expect(pointersOf(assertProblem(unknown, 422, "invalid_request"))).toEqual(["/top"]);
  });

  test("texts of different lengths in one run get the same output as alone", async () => {
    const texts: string[] = manifestOf(model).samples.map(({ input }: { input: string }) => input);
    const mixed = [...texts, "?", "hi", "card ".repeat(100).trim()];
    const alone: { label: string; confidence: number }[] = [];
    for (const text of mixed) alone.push((await stack.predict(model, text)).body.output);
    const together = await Promise.all(
      mixed.flatMap((text) => [stack.predict(model, text), stack.predict(model, text)]),
    );
    expect(Math.max(...together.map(({ body }) => body.timings.batch_rows))).toBeGreaterThan(1);
    together.forEach(({ body }, i) => {
      const expected = alone[i >> 1] as (typeof alone)[0];
      expect(body.output.label).toBe(expected.label);
      expect(body.output.confidence).toBeCloseTo(expected.confidence, 5);
    });
  });

  test.skipIf(!hasData("banking77"))(
    "the test split: at least nine of ten right, and within 1e-5 of the training library",
    async () => {
      const { about, rows: expected } = readReference(model, labels.length);
      expect(about.classes).toEqual(labels);
      const [, ...questions] = readRows("banking77/test.csv.gz");
      expect(questions).toHaveLength(3080);
      const results = await runBatch(
        stack,
        model,
        questions.map(([text]) => text),
      );
      let right = 0;
      let worst = 0;
      for (const [i, { output, status }] of results.entries()) {
        expect(status, `question ${i}`).toBe("succeeded");
        if (output.label === questions[i]?.[1]) right += 1;
        if (i % (about.step as number) > 0) continue;
        const wanted = expected[i / (about.step as number)] as Float32Array;
        for (const [c, label] of labels.entries()) {
          worst = Math.max(worst, Math.abs(output.probabilities[label] - (wanted[c] as number)));
        }
      }
      expect(expected).toHaveLength(Math.ceil(questions.length / (about.step as number)));
      expect(right / questions.length).toBeGreaterThanOrEqual(0.9);
      // The path of existing clients returns the same label.
      for (let i = 0; i < questions.length; i += 100) {
        const { body, status } = await ask(questions[i]?.[0]);
        expect([status, body.intent], JSON.stringify(body)).toEqual([200, results[i]?.output.label]);
      }
      expect(worst).toBeLessThanOrEqual(1e-5);
    },
  );
});
