import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasData, readFlows, readHeldOut } from "./support/read-data.js";
import { TestStack } from "./support/stack.js";

const inFlight = 64;
const tolerance = 1e-5;
const shareWithin = 0.9995;

// The data is not part of the repository; see models/training/README.md.
describe.skipIf(!hasData("cicids2017"))("held-out flows come out as in the training library", () => {
  const models = ["intrusion-random-forest", "intrusion-xgboost", "intrusion-decision-tree"];
  let stack: TestStack;
  let flows: number[][];

  beforeAll(async () => {
    flows = readFlows(readHeldOut("intrusion-random-forest").rows);
    stack = await TestStack.start({ models });
  });
  afterAll(() => stack?.close());

  // Every third flow of two models keeps this within half a minute.
  test.each([
    ["intrusion-random-forest", 1],
    ["intrusion-xgboost", 3],
    ["intrusion-decision-tree", 3],
  ])("%s: probabilities within 1e-5 on 9,995 of 10,000 or more", async (model, step) => {
    const { classes, probabilities, rows } = readHeldOut(model);
    expect(flows).toHaveLength(rows.length);
    const differences: number[] = [];
    let next = 0;
    const caller = async () => {
      for (let i = next; i < flows.length; i = next) {
        next += step;
        const { body, status } = await stack.predict(model, flows[i]);
        expect([status, body.status], JSON.stringify(body)).toEqual([200, "succeeded"]);
        const given = classes.map((label) => body.output.probabilities[label] as number);
        const wanted = probabilities[i] as Float32Array;
        differences.push(Math.max(...given.map((probability, c) => Math.abs(probability - (wanted[c] as number)))));
        expect(body.output.label).toBe(classes[given.indexOf(Math.max(...given))]);
      }
    };
    await Promise.all(Array.from({ length: inFlight }, caller));
    expect(differences).toHaveLength(Math.ceil(rows.length / step));
    const within = differences.filter((difference) => difference <= tolerance).length;
    expect(within / differences.length).toBeGreaterThanOrEqual(shareWithin);
  });
});
