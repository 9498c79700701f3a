import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasData, readFlows, readReference } from "../support/read-data.js";
import { runBatch } from "../support/run-batch.js";
import { manifestOf } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const model = "threats";

describe("threats", () => {
  let stack: TestStack;
  const { input, output, samples } = manifestOf(model);
  const labels: string[] = output.labels;
  const names: string[] = output.members.map(({ name }: { name: string }) => name);

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model] });
  });
  afterAll(() => stack?.close());

  test("takes flows of intrusion detection and derives 42 more features", async () => {
    expect(input.features).toEqual(manifestOf("intrusion-random-forest").input.features);
    expect([input.features.length, input.derived.length]).toEqual([78, 42]);
    for (const sample of samples) {
      const { body } = await stack.predict(model, sample.input);
      expect(body.output, sample.name).toMatchObject({ label: sample.expected.label, abstained: false });
      expect(body.output.members.map(({ name }: { name: string }) => name)).toEqual(names);
    }
  });

  test.skipIf(!hasData("cicids2017"))(
    "held-out flows: every vote and every member's output within 1e-5 of the training libraries",
    async () => {
      const { about, rows: expected } = readReference(model, labels.length * (1 + names.length));
      expect(about.members).toEqual(names);
      const flows = readFlows(about.rows as number[]);
      expect(flows).toHaveLength(expected.length);
      let worst = 0;
      let spoke = 0;
      const results = await runBatch(stack, model, flows);
      for (const [i, { output: given, status }] of results.entries()) {
        expect(status, `flow ${i}`).toBe("succeeded");
        const parts = Array.from({ length: 1 + names.length }, (_, p) =>
          Array.from((expected[i] as Float32Array).subarray(p * labels.length, (p + 1) * labels.length)),
        );
        const [vote, ...says] = parts as [number[], ...number[][]];
        for (const [l, label] of labels.entries()) {
          worst = Math.max(worst, Math.abs(given.probabilities[label] - (vote[l] as number)));
        }
        for (const [m, say] of says.entries()) {
          const member = given.members[m];
          const most = Math.max(...say);
          expect(member.abstained, `${names[m]} of flow ${i}`).toBe(most === 0);
          if (most === 0) continue;
          expect(member.label).toBe(labels[say.indexOf(most)]);
          worst = Math.max(worst, Math.abs(member.confidence - most));
        }
        if (!given.abstained) spoke += 1;
      }
      expect(worst).toBeLessThanOrEqual(1e-5);
      expect(spoke / flows.length).toBeGreaterThan(0.95);
    },
  );
});
