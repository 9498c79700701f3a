import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { asJson, differenceFrom, type Feeds, Reference, startWithModels } from "../support/models/made-models.js";
import { runBatch } from "../support/run-batch.js";
import type { TestStack } from "../support/stack/stack.js";
import { type DependentGraph, dependentGraphs, throwingLookUp } from "./dependent-graphs.js";

const kinds = Object.entries(dependentGraphs);

describe("a model whose outputs depend on the other rows of a run", () => {
  let stack: TestStack;
  const alone = new Map<string, Feeds[]>();

  beforeAll(async () => {
    for (const [name, kind] of [...kinds, ["look-up", throwingLookUp] as [string, DependentGraph]]) {
      const reference = await Reference.open(kind.graph);
      const answers: Feeds[] = [];
      for (const input of kind.inputs) answers.push(await reference.run(input));
      alone.set(name, answers);
      await reference.close();
    }
    const declared = kinds.map(([name, { graph }]) => [
      `${name}.declared`,
      { graph, manifest: { kind: "tensor", batching: { join: "always" } } },
    ]);
    stack = await startWithModels({
      ...dependentGraphs,
      "look-up": throwingLookUp,
      ...Object.fromEntries(declared),
    });
  });
  afterAll(() => stack.close());

  test.each(kinds)("%s is never joined, and answers each request as if alone", async (name, { inputs }) => {
    const { body } = await stack.get(`/v1/models/${name}`);
    expect(body.versions[0].joining).toEqual({ mode: "off", reason: expect.any(String) });
    const wanted = alone.get(name) as Feeds[];
    const sent = Array.from({ length: 16 }, (_, i) => i % inputs.length);
    const singles = await Promise.all(sent.map((i) => stack.predict(name, asJson(inputs[i] as Feeds))));
    for (const [k, { body: prediction }] of singles.entries()) {
      expect(differenceFrom(wanted[sent[k] as number] as Feeds, prediction.output)).toBeNull();
    }
    const rows = await runBatch(
      stack,
      name,
      sent.map((i) => asJson(inputs[i] as Feeds)),
    );
    for (const [k, { output }] of rows.entries()) {
      expect(differenceFrom(wanted[sent[k] as number] as Feeds, output)).toBeNull();
    }
  });

  test("is refused, with the difference, if its manifest declares batching.join as always", async () => {
    const answer = await fetch(`http://127.0.0.1:${stack.workers[0]?.port}/ready`);
    const { refused } = (await answer.json()) as { refused: { model: string; reason: string }[] };
    const reasons = new Map(refused.map(({ model, reason }) => [model, reason]));
    const served = kinds.map(([name]) => name).filter((name) => !reasons.has(`${name}.declared`));
    expect(served).toEqual([]);
    for (const reason of reasons.values())
      expect(reason).toMatch(/\/batching\/join: (cannot be always|always cannot be checked)/);
  });

  test("an input that makes a look-up throw fails alone, and the others are joined", async () => {
    const inputs = [0, 7, 1, 99, 2, 3, -9, 3];
    const answers = await Promise.all(inputs.map((id) => stack.predict("look-up", { id: [id] })));
    expect(answers.map(({ body }) => body.status)).toEqual(
      inputs.map((id) => (id >= 0 && id < 4 ? "succeeded" : "failed")),
    );
    for (const [i, { body }] of answers.entries()) {
      const wanted = alone.get("look-up")?.[inputs[i] as number];
      if (wanted !== undefined) expect(differenceFrom(wanted, body.output)).toBeNull();
    }
    expect((await stack.get("/v1/models/look-up")).body.joining.mode).toBe("proven");
  });
});
