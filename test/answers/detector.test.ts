import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { asJson, differenceFrom, type Feeds, Reference, startWithModels } from "../support/models/made-models.js";
import { volume } from "../support/run/volume.js";
import type { TestStack } from "../support/stack/stack.js";
import { dependentGraphs } from "./dependent-graphs.js";

const { graph, inputs } = dependentGraphs.detector as (typeof dependentGraphs)[string];
const rounds = volume(400, 1000);
/** Concurrent rounds. */
const atOnce = 25;

describe("two owners who call a detector at the same time", () => {
  let stack: TestStack;
  let wanted: Feeds[];

  beforeAll(async () => {
    const reference = await Reference.open(graph);
    wanted = [];
    for (const input of inputs) wanted.push(await reference.run(input));
    await reference.close();
    stack = await startWithModels({ detector: { graph } }, { slots: 2 });
  });
  afterAll(() => stack.close());

  test(`get their own detections, in each of ${rounds} rounds`, async () => {
    const faults: string[] = [];
    const ask = async (as: "alice" | "bob", i: number) => {
      const { body } = await stack.predict("detector", asJson(inputs[i] as Feeds), {}, { as });
      const difference = differenceFrom(wanted[i] as Feeds, body.output);
      if (difference !== null) faults.push(`${as}, input ${i}: ${difference} (${JSON.stringify(body).slice(0, 300)})`);
    };
    for (let round = 0; round < rounds; round += atOnce) {
      await Promise.all(
        Array.from({ length: atOnce }, (_, k) => {
          const i = (round + k) % inputs.length;
          return Promise.all([ask("alice", i), ask("bob", (i + 1 + (k % 3)) % inputs.length)]);
        }),
      );
    }
    expect(faults).toEqual([]);
  });
});
