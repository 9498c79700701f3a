import { cp, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { runBatch } from "../support/run-batch.js";
import { TestStack } from "../support/stack/stack.js";

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/models/${name}/1`, import.meta.url));
/** Returns its three float32 columns as `y`, so that a test sees the model's input. */
const echoed = (features: unknown[], more: object = {}, output: object = { head: "raw" }) => ({
  kind: "tabular",
  input: { tensor: "x", features, ...more },
  output,
});
const flags = (threshold: unknown) => ({ head: "multi_label", probabilities: "y", labels: ["a", "b", "c"], threshold });

/** A tokenizer like BERT's: lower-case word pieces between [CLS] and [SEP]. */
const tokenizer = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: ["[UNK]", "[CLS]", "[SEP]"].map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: {
    type: "BertNormalizer",
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
    lowercase: true,
  },
  pre_tokenizer: { type: "BertPreTokenizer" },
  post_processor: {
    type: "TemplateProcessing",
    single: [
      { SpecialToken: { id: "[CLS]", type_id: 0 } },
      { Sequence: { id: "A", type_id: 0 } },
      { SpecialToken: { id: "[SEP]", type_id: 0 } },
    ],
    pair: [],
    special_tokens: {
      "[CLS]": { id: "[CLS]", ids: [1], tokens: ["[CLS]"] },
      "[SEP]": { id: "[SEP]", ids: [2], tokens: ["[SEP]"] },
    },
  },
  decoder: { type: "WordPiece", prefix: "##", cleanup: true },
  model: {
    type: "WordPiece",
    unk_token: "[UNK]",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab: { "[UNK]": 0, "[CLS]": 1, "[SEP]": 2, card: 10, "##s": 20, lost: 40, my: 80 },
  },
};

/** Models by name: the fixture with their ONNX file, and their manifest. */
const models: Record<string, [string, object]> = {
  typed: [
    "echo-float32",
    echoed([
      { name: "colour", type: "category", values: ["red", "green", "blue"], default: "blue" },
      { name: "day", type: "date", part: "day_of_week" },
      { name: "size", min: -1, max: 2.5, default: 1.5 },
    ]),
  ],
  dates: [
    "echo-float32",
    echoed([
      { name: "second", type: "date" },
      { name: "weekday", type: "date", part: "day_of_week" },
      { name: "days", type: "date", part: "epoch_days" },
    ]),
  ],
  ratios: ["echo-float32", echoed(["a", "b"], { derived: [{ name: "r", op: "ratio", of: ["a", "b"], scale: 10 }] })],
  chained: [
    "echo-float32",
    echoed(["a"], {
      derived: [
        { name: "l", op: "log1p", of: ["a"] },
        { name: "e", op: "entropy", of: ["a", "l"] },
      ],
    }),
  ],
  flags: ["echo-float32", echoed(["a", "b", "c"], {}, flags([0.5, 0.9, -1]))],
  texts: [
    "text-length",
    { kind: "text", input: { tensor: "text", max_length: 5 }, output: { head: "regressor", value: "score" } },
  ],
  tokens: [
    "token-sums",
    {
      kind: "text",
      input: {
        tokenizer: { mask: "attention_mask", type_ids: "token_type_ids", max_tokens: 6, pad_id: 7 },
        min_length: 0,
      },
    },
  ],
  bare: [
    "token-sums",
    {
      kind: "text",
      input: { tokenizer: { mask: "attention_mask", type_ids: "token_type_ids", special_tokens: false } },
    },
  ],
  unfed: ["token-sums", { kind: "text", input: { tokenizer: { mask: "mask" } } }],
  wide: ["echo-string", { kind: "text", input: { tensor: "x" } }],
  misfit: ["echo-float32", echoed(["a", "b"], {}, { head: "anomaly", score: "y", threshold: 1 })],
  badrule: [
    "echo-float32",
    echoed(
      ["a"],
      {},
      {
        head: "ensemble",
        labels: ["yes", "no"],
        members: [{ name: "r", kind: "rules", rules: [{ when: 'f["a"] > 1.0 && f["z"] > 1.0', label: "yes" }] }],
      },
    ),
  ],
};

describe("kinds and heads", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [], workers: 0, apis: 1 });
    for (const [name, [from, manifest]] of Object.entries(models)) {
      await cp(fixture(from), join(stack.modelsDir, name, "1"), { recursive: true });
      await writeFile(join(stack.modelsDir, name, "model.json"), JSON.stringify(manifest));
      if (from === "token-sums") {
        await writeFile(join(stack.modelsDir, name, "1/tokenizer.json"), JSON.stringify(tokenizer));
      }
    }
    await stack.startWorker();
  });
  afterAll(() => stack?.close());

  const seen = async (model: string, input: unknown) => {
    const { body } = await stack.predict(model, input);
    expect(body.status, JSON.stringify(body)).toBe("succeeded");
    return body.output.y?.[0];
  };
  const refused = async (model: string, input: unknown) =>
    pointersOf(assertProblem(await stack.predict(model, input), 422, "invalid_input"));

  test("a category becomes its index, a date its part, and a missing value its default", async () => {
    expect(await seen("typed", { colour: "green", day: "2026-01-31", size: 2 })).toEqual([1, 5, 2]);
    expect(await seen("typed", ["red", "2026-02-02T23:00:00-02:00", -1])).toEqual([0, 1, -1]);
    expect(await seen("typed", { day: "2026-02-02" })).toEqual([2, 0, 1.5]);
    expect(await seen("typed", [null, "2026-02-02", null])).toEqual([2, 0, 1.5]);
  });

  test("a date gives its second of the day, its weekday and its day since 1970, in UTC", async () => {
    const all = (date: string) => seen("dates", [date, date, date]);
    expect(await all("1970-01-01")).toEqual([0, 3, 0]);
    expect(await all("2026-01-31T09:30:15.5Z")).toEqual([9 * 3600 + 30 * 60 + 15.5, 5, 20_484]);
    expect(await all("1969-12-31T23:59:59Z")).toEqual([86_399, 2, -1]);
  });

  test("values out of range, unknown categories, invalid dates and unknown fields are all listed at once", async () => {
    expect(await refused("typed", { colour: "pink", day: "31.01.2026", size: 2.6, shape: 1 })).toEqual([
      "/input/colour",
      "/input/day",
      "/input/shape",
      "/input/size",
    ]);
    expect(await refused("typed", [1, "2026-13-01", "2"])).toEqual(["/input/0", "/input/1", "/input/2"]);
    expect(await refused("typed", {})).toEqual(["/input/day"]);
    expect(await refused("typed", ["red", null, 1])).toEqual(["/input/1"]);
  });

  test("derived columns follow the features, may use earlier ones, and are always finite", async () => {
    expect(await seen("ratios", [3, 4])).toEqual([3, 4, 7.5]);
    expect(await seen("ratios", [3, 0])).toEqual([3, 0, 0]);
    expect(await seen("ratios", [3e38, 1e-38])).toEqual([3e38, 1e-38, 3.4028234663852886e38].map(Math.fround));
    const [a, l, e] = (await seen("chained", { a: -3 })) as [number, number, number];
    expect([a, l]).toEqual([-3, Math.fround(-Math.log(4))]);
    const share = 3 / (3 - l);
    expect(e).toBeCloseTo(-share * Math.log2(share) - (1 - share) * Math.log2(1 - share), 6);
    expect(await seen("chained", [0])).toEqual([0, 0, 0]);
  });

  test("a batch reads typed, derived and text inputs like single predictions, in JSON and in CSV", async () => {
    const rows = [
      { colour: "green", day: "2026-01-31", size: 2 },
      [1, "2026-01-31", 2],
      ["red", "2026-02-02", -1],
      ["red", "2026-02-02", -2],
      { day: "2026-02-02" },
    ];
    const typed = await runBatch(stack, "typed", rows);
    expect(typed.map(({ output }) => output?.y[0] ?? null)).toEqual([[1, 5, 2], null, [0, 0, -1], null, [2, 0, 1.5]]);
    expect(typed[1]?.error).toMatchObject({ code: "invalid_input" });
    const derived = await runBatch(stack, "ratios", [[3, 4], { a: 1, b: 0 }, [1, 2]]);
    expect(derived.map(({ output }) => output.y)).toEqual([[[3, 4, 7.5]], [[1, 0, 0]], [[1, 2, 5]]]);
    const texts = await runBatch(stack, "texts", [" größe ", "", "bad"]);
    expect(texts.map(({ output }) => output?.value ?? null)).toEqual([5, null, 3]);

    // A column with a default may be missing, and so may its value.
    const text = "day,colour\n2026-01-31,green\n2026-02-02,\n2026-02-02,7\n";
    const headers = { "content-type": "text/csv" };
    const { body } = await stack.call("POST", "/v1/models/typed/batches", { text, headers });
    const ended = await stack.get(`/v1/batches/${body.id}?wait=30`);
    expect(ended.body.counts).toMatchObject({ total: 3, succeeded: 2, failed: 1 });
    const results = await stack.get(`/v1/batches/${body.id}/results`, { headers: { accept: "application/x-ndjson" } });
    const outputs = results.body
      .trimEnd()
      .split("\n")
      .map((line: string) => JSON.parse(line).output?.y[0] ?? null);
    expect(outputs).toEqual([[1, 5, 1.5], [2, 0, 1.5], null]);
  });

  test("a multi_label head returns each label at or above its own threshold", async () => {
    const { body } = await stack.predict("flags", [0.5, 0.5, 0]);
    expect(body.output).toEqual({ labels: ["a", "c"], scores: { a: 0.5, b: 0.5, c: 0 } });
    expect((await stack.predict("flags", [0.25, 1, -2])).body.output.labels).toEqual(["b"]);
    expect((await stack.get("/v1/models/flags")).body.output).toEqual({ head: "multi_label", labels: ["a", "b", "c"] });
  });

  test("a text reaches a string tensor trimmed and without NUL, counted in characters", async () => {
    const score = async (text: unknown) => (await stack.predict("texts", text)).body.output;
    // The fixture knows a few words, and returns -1 for others.
    expect(await score(" \0gr\0öße\n")).toEqual({ value: 5 });
    expect(await score("日本")).toEqual({ value: 2 });
    expect(await score("😀😀😀😀😀")).toEqual({ value: -1 });
    expect(await score({ text: " bad\0" })).toEqual({ value: 3 });
    for (const text of ["", "\0 ", "größer", "😀😀😀😀😀😀", "\ud800", 5, ["bad"]]) {
      expect(await refused("texts", text)).toEqual(["/input"]);
    }
    expect(await refused("texts", {})).toEqual(["/input/text"]);
    expect(await refused("texts", { text: "", pair: "a", "a/b": 1 })).toEqual([
      "/input/a~1b",
      "/input/pair",
      "/input/text",
    ]);
  });

  test("a tokenizer encodes a text, truncated to its maximum, and padding changes no output", async () => {
    const texts = ["My cards", "lost", "", "my unknown CARD!", "my my my my my my my my"];
    const expected = [
      { sum: 1 + 80 + 10 + 20 + 2, tokens: 5 },
      { sum: 1 + 40 + 2, tokens: 3 },
      { sum: 1 + 2, tokens: 2 },
      { sum: 1 + 80 + 0 + 10 + 0 + 2, tokens: 6 },
      { sum: 1 + 4 * 80 + 2, tokens: 6 },
    ];
    for (const [i, text] of texts.entries()) {
      const { body } = await stack.predict("tokens", text);
      expect(body.output, text).toEqual({ sum: [expected[i]?.sum], tokens: [expected[i]?.tokens] });
    }
    const many = await runBatch(stack, "tokens", [...texts, ...texts, ...texts]);
    expect(many.map(({ output }) => ({ sum: output.sum[0], tokens: output.tokens[0] }))).toEqual(
      [expected, expected, expected].flat(),
    );
  });

  test("a text without any token fails alone, as invalid_input", async () => {
    // A zero-width joiner is a character, but no token.
    const [good, empty, last] = await runBatch(stack, "bare", ["my card", "\u200d", "lost"]);
    expect([good?.output, last?.output]).toEqual([
      { sum: [90], tokens: [2] },
      { sum: [40], tokens: [1] },
    ]);
    expect(empty).toMatchObject({ status: "failed", output: null, error: { code: "invalid_input" } });
    expect((await stack.predict("bare", "\u200d")).body).toMatchObject({
      status: "failed",
      error: { code: "invalid_input" },
    });
  });

  test("a manifest that contradicts its ONNX file is refused with pointers", async () => {
    const [worker] = stack.workers as [(typeof stack.workers)[0]];
    const state = (await (await fetch(`http://127.0.0.1:${worker.port}/ready`)).json()) as {
      refused: { model: string; reason: string }[];
    };
    const reasonOf = (model: string) => state.refused.find((refusal) => refusal.model === model)?.reason;
    expect(reasonOf("misfit")).toMatch(/^model\.json \/input: .*takes 3.*; model\.json \/output\/score: .*\[rows, 1\]/);
    expect(reasonOf("badrule")).toMatch(/rule 0 of member "r".*z/i);
    expect(reasonOf("unfed")).toMatch(
      /names the input "mask".*does not name the input "attention_mask", "token_type_ids"/,
    );
    expect(reasonOf("wide")).toMatch(/^model\.json \/input: input "x" must be string \[rows\] or \[rows, 1\]/);
    expect(state.refused.map(({ model }) => model).sort()).toEqual(["badrule", "misfit", "unfed", "wide"]);
  });
});

describe("ensembles", () => {
  let stack: TestStack;
  const rule = (name: string, when: string, label: string, more: object = {}) => ({
    name,
    kind: "rules",
    rules: [{ when, label, ...more }],
  });
  const ensemble = (members: object[], vote: object) => ({
    kind: "tabular",
    input: { tensor: "x", features: ["a", "b"], derived: [{ name: "sum", op: "sum", of: ["a", "b"] }] },
    output: { head: "ensemble", labels: ["low", "high", "odd"], members, vote },
  });
  const members = [
    { ...rule("small", 'f["a"] < 10.0', "low", { confidence: 0.6 }), weight: 1 },
    { ...rule("large", 'f["sum"] > 5.0 && f["b"] != 0.0', "high", { confidence: 0.8 }), weight: 2 },
    {
      name: "far",
      kind: "statistics",
      method: "z_score",
      baselines: [
        { feature: "a", mean: 5, std: 5 },
        { feature: "b", mean: 0, std: 1 },
      ],
      threshold: 3,
      anomaly: "odd",
      weight: 4,
    },
  ];

  beforeAll(async () => {
    stack = await TestStack.start({ models: [], workers: 0 });
    const manifests = {
      soft: ensemble(members, { method: "soft", min_margin: 0.2 }),
      hard: ensemble(members, { method: "hard" }),
      correlated: ensemble(
        [
          {
            name: "far",
            kind: "statistics",
            method: "mahalanobis",
            baselines: [
              { feature: "a", mean: 0, std: 1 },
              { feature: "b", mean: 0, std: 1 },
            ],
            // Two correlated features: their difference weighs nine times their sum.
            precision: [
              [2.5, -2],
              [-2, 2.5],
            ],
            threshold: 2,
            anomaly: "odd",
            normal: "low",
          },
        ],
        {},
      ),
    };
    for (const [name, manifest] of Object.entries(manifests)) {
      await mkdir(join(stack.modelsDir, name, "1"), { recursive: true });
      await writeFile(join(stack.modelsDir, name, "model.json"), JSON.stringify(manifest));
    }
    await stack.startWorker();
  });
  afterAll(() => stack?.close());

  const outputOf = async (model: string, input: number[]) => {
    const { body } = await stack.predict(model, input);
    expect(body.status, JSON.stringify(body)).toBe("succeeded");
    return body.output;
  };

  test("a soft vote averages confidences by weight, and each member's output is returned", async () => {
    const output = await outputOf("soft", [6, 0.5]);
    expect(Object.keys(output)).toEqual(["label", "confidence", "probabilities", "abstained", "members"]);
    expect(output).toMatchObject({ label: "high", abstained: false, probabilities: { odd: 0 } });
    expect(output.confidence).toBeCloseTo(1.6 / 2.2, 12);
    expect(output.probabilities.low).toBeCloseTo(0.6 / 2.2, 12);
    expect(output.members).toEqual([
      { name: "small", label: "low", confidence: 0.6, abstained: false },
      { name: "large", label: "high", confidence: 0.8, abstained: false },
      { name: "far", label: null, confidence: null, abstained: true },
    ]);
  });

  test("a hard vote gives each member's weight to its label", async () => {
    const { confidence, label, probabilities } = await outputOf("hard", [6, 0.5]);
    expect([label, confidence]).toEqual(["high", probabilities.high]);
    expect(probabilities).toEqual({ low: 1 / 3, high: 2 / 3, odd: 0 });
  });

  test("values far from their baseline are an anomaly, with a confidence that grows with the distance", async () => {
    const near = await outputOf("soft", [6, 3.5]);
    const far = await outputOf("soft", [6, 9]);
    expect(near.members[2].confidence).toBeCloseTo(1 / (1 + Math.exp(-0.5)), 6);
    expect(far.members[2].confidence).toBeGreaterThan(near.members[2].confidence);
    expect(far.label).toBe("odd");
    const along = await outputOf("correlated", [3, 3]);
    const across = await outputOf("correlated", [1, -1]);
    expect([along.label, across.label]).toEqual(["odd", "odd"]);
    expect(across.confidence).toBeCloseTo(1 / (1 + Math.exp(2 - 3)), 6);
    expect(along.confidence).toBeCloseTo(1 / (1 + Math.exp(2 - 3)), 6);
    expect((await outputOf("correlated", [0.1, -0.1])).label).toBe("low");
  });

  test("below its margin, or if all members abstain, an ensemble abstains and returns their outputs", async () => {
    const torn = await outputOf("soft", [6, 3.1]);
    expect(torn).toMatchObject({ label: null, abstained: true });
    expect(torn.members.map(({ label }: { label: string }) => label)).toEqual(["low", "high", "odd"]);
    const silent = await outputOf("soft", [12, 0]);
    expect(silent).toMatchObject({ label: null, abstained: true, confidence: 0 });
    expect(silent.members.every(({ abstained }: { abstained: boolean }) => abstained)).toBe(true);
  });

  test("GET /v1/models returns members and vote", async () => {
    const { body } = await stack.get("/v1/models/soft");
    expect(body.output).toEqual({
      head: "ensemble",
      labels: ["low", "high", "odd"],
      members: [
        { name: "small", kind: "rules", weight: 1 },
        { name: "large", kind: "rules", weight: 2 },
        { name: "far", kind: "statistics", weight: 4 },
      ],
      vote: { method: "soft", min_margin: 0.2 },
    });
    expect(body.input.derived).toEqual(["sum"]);
  });
});
