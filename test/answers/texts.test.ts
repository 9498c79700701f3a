import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type MadeModel, startWithModels } from "../support/models/made-models.js";
import { floats, ints, type ModelFile, node } from "../support/models/onnx-file.js";
import { runBatch } from "../support/run-batch.js";
import type { TestStack } from "../support/stack/stack.js";

const vocabulary = { "[PAD]": 0, "[UNK]": 1, good: 2, bad: 3, film: 4, very: 5 };

const tokenizer = (padding: object | null = null): string =>
  JSON.stringify({
    ...{ version: "1.0", truncation: null, padding, added_tokens: [], normalizer: null },
    pre_tokenizer: { type: "Whitespace" },
    ...{ post_processor: null, decoder: null },
    model: { type: "WordLevel", vocab: vocabulary, unk_token: "[UNK]" },
  });

const onLeft = tokenizer({
  ...{ strategy: "BatchLongest", direction: "Left", pad_to_multiple_of: null },
  ...{ pad_id: 0, pad_type_id: 0, pad_token: "[PAD]" },
});

/** Two numbers a word; padding and unknown words have non-zero ones too. */
const embedding = [9, 9, 7, -7, 0.5, 0.5, 2, -1, -2, 1, 0.1, 0.2];
const table = { emb: floats([6, 2], embedding) };
const last = { last: ints(2), tokens: ints(1) };
const masked = ["int64", ["batch", "tokens"]] as const;

const model = (
  nodes: ModelFile["nodes"],
  shape: (string | number)[] | null,
  head: object,
  more: Partial<MadeModel> = {},
): MadeModel => ({
  graph: {
    nodes,
    constants: { ...table, ...last },
    inputs: { input_ids: masked, attention_mask: masked },
    outputs: { y: ["float32", shape] },
  },
  manifest: {
    kind: "text",
    input: { tokenizer: { ids: "input_ids", mask: "attention_mask" } },
    output: head,
    batching: { max_delay_ms: 300 },
  },
  files: { "tokenizer.json": tokenizer() },
  ...more,
});

const look = node("Gather", ["emb", "input_ids"], ["e"]);
const mask = [
  node("Cast", ["attention_mask"], ["m"], { to: 1 }),
  node("Unsqueeze", ["m", "last"], ["m3"]),
  node("Mul", ["e", "m3"], ["em"]),
];
const sums = [
  node("ReduceSum", ["em", "tokens"], ["total"], { keepdims: 0 }),
  node("ReduceSum", ["m", "tokens"], ["count"], { keepdims: 1 }),
];

const models: Record<string, MadeModel> = {
  // An encoder without pooling: one vector a token.
  "token-vectors": model([look, ...mask, node("Identity", ["em"], ["y"])], ["batch", "tokens", 2], { head: "raw" }),
  "left-padded": model(
    [look, ...mask, node("Identity", ["em"], ["y"])],
    ["batch", "tokens", 2],
    { head: "raw" },
    {
      files: { "tokenizer.json": onLeft },
    },
  ),
  // Attention weights: a token by token square for each text.
  "token-pairs": model(
    [look, ...mask, node("Transpose", ["em"], ["t"], { perm: [0, 2, 1] }), node("MatMul", ["em", "t"], ["y"])],
    ["batch", "tokens", "tokens2"],
    { head: "raw" },
  ),
  "mean-under-mask": model([look, ...mask, ...sums, node("Div", ["total", "count"], ["y"])], ["batch", 2], {
    head: "regressor",
    value: "y",
    targets: ["a", "b"],
  }),
  // Takes a mask and ignores it.
  "mean-of-all": model(
    [
      look,
      node("Cast", ["attention_mask"], ["m"], { to: 1 }),
      node("Unsqueeze", ["m", "last"], ["m3"]),
      node("Sub", ["m3", "m3"], ["nothing"]),
      node("Add", ["e", "nothing"], ["em"]),
      node("ReduceMean", ["em"], ["y"], { axes: [1], keepdims: 0 }),
    ],
    ["batch", 2],
    { head: "regressor", value: "y", targets: ["a", "b"] },
  ),
  "without-mask": {
    graph: {
      nodes: [look, node("ReduceMean", ["e"], ["y"], { axes: [1], keepdims: 0 })],
      constants: table,
      inputs: { input_ids: masked },
      outputs: { y: ["float32", ["batch", 2]] },
    },
    manifest: {
      kind: "text",
      input: { tokenizer: { ids: "input_ids" } },
      output: { head: "regressor", value: "y", targets: ["a", "b"] },
    },
    files: { "tokenizer.json": tokenizer() },
  },
};

/** Uses its mask, and has position embeddings for eight words: it fails on longer texts, and on texts padded longer. */
const fewPlaces = model(
  [
    look,
    node("Shape", ["input_ids"], ["shape"], { start: 1, end: 2 }),
    node("Slice", ["places", "from", "shape", "from"], ["own"]),
    node("Add", ["e", "own"], ["placed"]),
    ...mask.map((own) => (own.type === "Mul" ? node("Mul", ["placed", "m3"], ["em"]) : own)),
    ...sums,
    node("Div", ["total", "count"], ["y"]),
  ],
  ["batch", 2],
  { head: "regressor", value: "y", targets: ["a", "b"] },
);
Object.assign(fewPlaces.graph.constants ?? {}, {
  places: floats([8, 2], new Array(16).fill(0)),
  from: ints(0),
});

const texts = [
  "good film",
  "bad",
  "very very very very good film",
  "zebra",
  "good zebra film",
  "bad film",
  ...Array.from({ length: 26 }, (_, i) => `${"very ".repeat(i % 7)}${i % 2 === 0 ? "good" : "bad"} film`),
];

const vectorsOf = (text: string): number[][] =>
  text
    .split(" ")
    .map((word) => (vocabulary as Record<string, number>)[word] ?? 1)
    .map((id) => embedding.slice(2 * id, 2 * id + 2));

const means = (text: string) => {
  const vectors = vectorsOf(text);
  const mean = (d: number) => vectors.reduce((sum, vector) => sum + (vector[d] as number), 0) / vectors.length;
  return { values: { a: mean(0), b: mean(1) } };
};

const expected: Record<string, (text: string) => unknown> = {
  "token-vectors": (text) => ({ y: [vectorsOf(text)] }),
  "left-padded": (text) => ({ y: [vectorsOf(text)] }),
  "token-pairs": (text) => {
    const vectors = vectorsOf(text) as [number, number][];
    return { y: [vectors.map(([a, b]) => vectors.map(([c, d]) => a * c + b * d))] };
  },
  "mean-under-mask": means,
  "mean-of-all": means,
  "without-mask": means,
};

/** Numbers rounded to 1e-5, for comparison. */
const rounded = (output: unknown): unknown =>
  JSON.parse(JSON.stringify(output), (_key, value: unknown) =>
    typeof value === "number" ? Math.round(value * 1e5) / 1e5 + 0 : value,
  );

describe("a text among others of different lengths", () => {
  let stack: TestStack;
  beforeAll(async () => {
    stack = await startWithModels({ ...models, "few-places": fewPlaces });
  });
  afterAll(() => stack.close());

  test.each(Object.keys(models))("gets from %s the same output as alone, without padding", async (name) => {
    const wanted = texts.map((text) => rounded((expected[name] as (text: string) => unknown)(text)));
    const singles = await Promise.all(texts.map((text) => stack.predict(name, text)));
    expect(singles.map(({ body }) => rounded(body.output))).toEqual(wanted);
    const rows = await runBatch(stack, name, texts);
    expect(rows.map(({ output }) => rounded(output))).toEqual(wanted);
  });

  test("shares runs with all texts if the model uses its mask, else with texts of its length", async () => {
    const most = async (name: string) => {
      const answers = await Promise.all(texts.map((text) => stack.predict(name, text)));
      return Math.max(...answers.map(({ body }) => body.timings.batch_rows));
    };
    // At most eight texts have the same length.
    expect(await most("mean-under-mask")).toBeGreaterThan(8);
    expect(await most("token-vectors")).toBeGreaterThan(8);
    expect(await most("mean-of-all")).toBeLessThanOrEqual(8);
    const reasons = new Map<string, string>();
    for (const name of Object.keys(models)) {
      const { mode, reason } = (await stack.get(`/v1/models/${name}`)).body.joining;
      expect(mode).toBe("proven");
      reasons.set(name, reason);
    }
    const apart = [...reasons].filter(([, reason]) => reason.includes("only equally long texts share a run"));
    expect(apart.map(([name]) => name)).toEqual(["mean-of-all", "without-mask"]);
  });

  test("is answered beside a text too long for the model, which fails alone", async () => {
    const sent = ["good film", "very ".repeat(12).trim(), "bad", "very ".repeat(20).trim(), "good good film"];
    const answers = await Promise.all(sent.map((text) => stack.predict("few-places", text)));
    const wanted = sent.map((text) => (text.split(" ").length > 8 ? null : rounded(means(text))));
    expect(answers.map(({ body }) => body.output && rounded(body.output))).toEqual(wanted);
    const rows = await runBatch(stack, "few-places", sent);
    expect(rows.map(({ output }) => output && rounded(output))).toEqual(wanted);
  });

  test("may contain words unknown to the tokenizer, without ending a slot", async () => {
    expect(stack.logged("slot ended and is replaced")).toEqual([]);
  });
});
