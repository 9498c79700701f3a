import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startWithModels } from "../support/models/made-models.js";
import { ints, type ModelFile, node } from "../support/models/onnx-file.js";
import type { TestStack } from "../support/stack/stack.js";

const draws: ModelFile = {
  nodes: [node("RandomUniformLike", ["x"], ["r"]), node("Add", ["x", "r"], ["y"])],
  inputs: { x: ["float32", ["n", 2]] },
  outputs: { y: ["float32", ["n", 2]] },
};
/** A branch of an If whose own subgraph draws. */
const branch = (name: string) => ({
  graph: {
    nodes: [node("RandomUniformLike", ["x"], [name])],
    inputs: {},
    outputs: { [name]: ["float32", ["n", 2]] as const },
  },
});
const drawsWithin: ModelFile = {
  ...draws,
  nodes: [node("If", ["yes"], ["y"], { then_branch: branch("t"), else_branch: branch("e") })],
  constants: { yes: { dtype: "bool", dims: [], data: [1] } },
};
const plain: ModelFile = {
  ...draws,
  nodes: [node("Dropout", ["x", "", "no"], ["y"])],
  constants: { no: { dtype: "bool", dims: [], data: [0] }, unused: ints(1) },
};

describe("a graph that draws random numbers", () => {
  let stack: TestStack;
  beforeAll(async () => {
    const kept = { kind: "tensor", cache_ttl_seconds: 60 };
    stack = await startWithModels({
      draws: { graph: draws },
      within: { graph: drawsWithin },
      kept: { graph: draws, manifest: kept },
      plain: { graph: plain },
    });
  });
  afterAll(() => stack.close());

  const input = { x: [[1, 2]] };
  const twice = async (model: string) => {
    const first = (await stack.predict(model, input, { cache: true })).body;
    const second = (await stack.predict(model, input, { cache: true })).body;
    return { same: JSON.stringify(first.output) === JSON.stringify(second.output), cached: second.cached };
  };

  test.each(["draws", "within"])("%s is neither cached nor deduplicated", async (model) => {
    expect(await twice(model)).toEqual({ same: false, cached: false });
    const together = await Promise.all(Array.from({ length: 6 }, () => stack.predict(model, input, { cache: true })));
    expect(new Set(together.map(({ body }) => body.id)).size).toBe(6);
    expect(new Set(together.map(({ body }) => JSON.stringify(body.output))).size).toBe(6);
  });

  test("is cached if the manifest sets cache_ttl_seconds", async () => {
    expect(await twice("kept")).toEqual({ same: true, cached: true });
  });

  test("differs from a graph that draws only in training, such as one with Dropout, which is cached", async () => {
    expect(await twice("plain")).toEqual({ same: true, cached: true });
  });
});
