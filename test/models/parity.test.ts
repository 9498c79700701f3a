import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasData, inParallel, readFlows, readHeldOut } from "../support/read-data.js";
import { runBatch } from "../support/run-batch.js";
import { TestStack } from "../support/stack/stack.js";

/** Every `step`th flow is also sent as a single prediction. */
const step = 20;
const tolerance = 1e-5;
const shareWithin = 0.9995;

// The data is not part of the repository; see models/training/README.md.
describe.skipIf(!hasData("cicids2017"))("held-out flows agree with the training library", () => {
  const models = ["intrusion-random-forest", "intrusion-xgboost", "intrusion-decision-tree"];
  let stack: TestStack;
  let flows: number[][];

  beforeAll(async () => {
    flows = readFlows(readHeldOut("intrusion-random-forest").rows);
    stack = await TestStack.start({ models });
  });
  afterAll(() => stack?.close());

  test.each(models)("%s: probabilities within 1e-5 on at least 9,995 of 10,000", async (model) => {
    const { classes, probabilities, rows } = readHeldOut(model);
    expect(flows).toHaveLength(rows.length);
    const results = await runBatch(stack, model, flows);
    const differences = results.map(({ output, status }, i) => {
      expect(status, `flow ${i}`).toBe("succeeded");
      const given = classes.map((label) => output.probabilities[label] as number);
      expect(output.label).toBe(classes[given.indexOf(Math.max(...given))]);
      const wanted = probabilities[i] as Float32Array;
      return Math.max(...given.map((probability, c) => Math.abs(probability - (wanted[c] as number))));
    });
    const within = differences.filter((difference) => difference <= tolerance).length;
    expect(within / differences.length).toBeGreaterThanOrEqual(shareWithin);
    // Single predictions, which are joined with other rows, give the same.
    await inParallel(Math.floor(flows.length / step), async (i) => {
      const { body, status } = await stack.predict(model, flows[i * step]);
      expect([status, body.status], JSON.stringify(body)).toEqual([200, "succeeded"]);
      expect(body.output).toEqual(results[i * step]?.output);
    });
  });
});
