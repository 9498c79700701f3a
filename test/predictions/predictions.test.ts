import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { volume } from "../support/run/volume.js";
import { flow, manifestOf } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const count = volume(300, 1000);

describe("predictions on the shipped models", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: ["intrusion-random-forest", "intrusion-xgboost", "intrusion-decision-tree"],
      slots: 2,
    });
  });
  afterAll(() => stack.close());

  test("an accepted prediction answers 202 with its Location, and succeeds", async () => {
    const answer = await stack.post("/v1/models/intrusion-random-forest/predictions", {
      input: flow(),
      metadata: { a: [1] },
    });
    expect(answer.status).toBe(202);
    expect(answer.headers.get("location")).toBe(`/v1/predictions/${answer.body.id}`);
    expect(answer.body).toMatchObject({ object: "prediction", status: "queued", output: null, metadata: { a: [1] } });
    const final = await stack.final(answer.body.id);
    expect(final).toMatchObject({
      id: answer.body.id,
      status: "succeeded",
      attempts: 1,
      cached: false,
      metadata: { a: [1] },
      model_digest: answer.body.model_digest,
    });
    expect(Object.keys(final.output.probabilities)).toEqual(manifestOf("intrusion-random-forest").output.labels);
    expect(final.timings.total_ms).toBeGreaterThan(0);
  });

  test("hundreds of different rows submitted at once each get their own result", async () => {
    const model = "intrusion-decision-tree";
    const inputs = Array.from({ length: count }, (_, i) => flow(i * 7919));
    const accepted = await Promise.all(inputs.map((input, i) => stack.submit(model, input, { metadata: { i } })));
    const finals = await Promise.all(accepted.map(({ id }) => stack.final(id)));
    // Compared with single submissions, which run alone.
    for (const i of [0, 1, 2, count / 4, count / 2, count - 2, count - 1]) {
      const alone = await stack.predict(model, inputs[i]);
      expect(finals[i].output).toEqual(alone.body.output);
    }
    expect(finals.map((final) => final.metadata.i)).toEqual(inputs.map((_, i) => i));
    expect(new Set(finals.map((final) => final.id)).size).toBe(count);
    expect(Math.max(...finals.map((final) => final.timings.batch_rows))).toBeGreaterThan(1);
  });
});
