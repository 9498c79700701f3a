import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { InputRefusedError } from "@millrace/workers/preparation/preparation.js";
import { openTokenizer, type Tokens } from "@millrace/workers/preparation/tokenizer.js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { volume } from "../support/run/volume.js";
import { runBatch } from "../support/run-batch.js";
import { childrenOf, readiness } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";

type Row = [ids: number[], typeIds?: number[], mask?: number[]] | null;

interface Expected {
  library: string;
  texts: string[];
  pairs: [number, number][];
  tokenizers: Record<string, Record<string, unknown>>;
  cases: { tokenizer: string; max_tokens: number; special_tokens: boolean; texts: Row[]; pairs: Row[] }[];
}

const packed = await readFile(fileURLToPath(new URL("../fixtures/tokenizers/expected.json.gz", import.meta.url)));
const expected: Expected = JSON.parse(gunzipSync(packed).toString());
/**
 * In the suite each tokenizer is tested with one of its three settings, in turn, because opening takes longer than use.
 */
const settingsEach = volume(1, 3);
const cases = expected.cases.filter(({ tokenizer }, i) => {
  const of = Object.keys(expected.tokenizers).indexOf(tokenizer);
  const setting = i - expected.cases.findIndex((one) => one.tokenizer === tokenizer);
  return (setting + of) % 3 < settingsEach;
});
const fileOf = (name: string) => expected.tokenizers[name] as Record<string, unknown>;

let folder: string;
let made = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "millrace-tokenizers-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const defaults = { max_tokens: 512, special_tokens: true, max_length: 512 };

/** Opens a tokenizer file with this content. */
async function open(content: unknown, settings: Partial<typeof defaults> = {}) {
  made += 1;
  const file = join(folder, `${made}.json`);
  await writeFile(file, typeof content === "string" || Buffer.isBuffer(content) ? content : JSON.stringify(content));
  return openTokenizer(file, "tokenizer.json", { ...defaults, ...settings });
}

const rowOf = ({ ids, mask, typeIds }: Tokens): Row => {
  const masked = mask.includes(0);
  if (masked) return [ids, typeIds, mask];
  return typeIds.some((id) => id !== 0) ? [ids, typeIds] : [ids];
};

describe("token ids equal those of the Rust library", () => {
  test("the fixtures are of the workers' release of the library, with many kinds and difficult texts", async () => {
    const manifest = JSON.parse(
      await readFile(fileURLToPath(new URL("../../workers/package.json", import.meta.url)), "utf8"),
    );
    expect(expected.library).toBe(manifest.dependencies.tokenizers);
    expect(Object.keys(expected.tokenizers).length).toBeGreaterThanOrEqual(20);
    expect(new Set(expected.texts).size).toBeGreaterThanOrEqual(600);
    // Guards against a file of mostly refusals.
    expect(new Set(cases.map(({ tokenizer }) => tokenizer)).size).toBe(Object.keys(expected.tokenizers).length);
    for (const { tokenizer, texts } of expected.cases)
      expect(
        texts.filter((row) => row !== null),
        tokenizer,
      ).not.toEqual([]);
  });

  test.each(cases.map((one) => [one.tokenizer, one.max_tokens, one.special_tokens, one] as const))(
    "%s, at most %i tokens, special tokens: %s",
    async (name, max_tokens, special_tokens, { pairs, texts }) => {
      const tokenizer = await open(fileOf(name), { max_tokens, special_tokens });
      const some =
        texts.length === expected.texts.length ? expected.texts : expected.texts.filter((_, i) => i % 4 === 0);
      expect(some).toHaveLength(texts.length);
      const check = async (wanted: Row, text: string, pair: string | null) => {
        const row = await tokenizer.encode(text, pair).then(rowOf, (fault) => {
          expect(fault).toBeInstanceOf(InputRefusedError);
          return null;
        });
        if (JSON.stringify(row) !== JSON.stringify(wanted)) expect(row, JSON.stringify([text, pair])).toEqual(wanted);
      };
      for (const [i, text] of some.entries()) await check(texts[i] as Row, text, null);
      for (const [i, [a, b]] of expected.pairs.entries()) {
        await check(pairs[i] as Row, some[a % some.length] as string, some[b % some.length] as string);
      }
    },
  );
});

describe("an unusable tokenizer is refused with the reason, and no file path", () => {
  const wordLevel = fileOf("wordlevel");
  const reasonFor = async (content: unknown, settings = {}): Promise<string> => {
    const fault = await open(content, settings).then(
      () => new Error("opened"),
      (reason: Error) => reason,
    );
    expect(fault.message).toMatch(/^tokenizer\.json cannot be used as a tokenizer: /);
    expect(fault.message).not.toContain(folder);
    return fault.message.slice("tokenizer.json cannot be used as a tokenizer: ".length);
  };

  test("a component that the library cannot read is named, at any depth", async () => {
    const nested = {
      type: "Sequence",
      normalizers: [{ type: "NFC" }, { type: "Sequence", normalizers: [{ type: "Wat" }] }],
    };
    expect(await reasonFor({ ...wordLevel, normalizer: nested })).toMatch(/does not read its normalizer "Wat"/);
    expect(await reasonFor({ ...wordLevel, pre_tokenizer: { type: "Huh" } })).toMatch(/its pre_tokenizer "Huh"/);
    expect(await reasonFor({ ...wordLevel, post_processor: { no: 1 } })).toMatch(/its post_processor without a type/);
    expect(await reasonFor({ ...wordLevel, decoder: { type: "Hm" } })).toMatch(/its decoder "Hm"/);
    expect(await reasonFor({ ...wordLevel, model: { type: "Oracle" } })).toMatch(/its model "Oracle"/);
    const broken = { type: "Replace", pattern: { Regex: "([" }, content: "" };
    expect(await reasonFor({ ...wordLevel, normalizer: broken })).toMatch(/its normalizer "Replace"/);
  });

  test("a component that crashes the library's process crashes no other, and is named", async () => {
    const normalizer = (charsmap: unknown) => ({ type: "Precompiled", precompiled_charsmap: charsmap });
    const sequence = (id: string) => ({ Sequence: { id, type_id: 0 } });
    const template = { type: "TemplateProcessing", single: [sequence("B")], pair: [], special_tokens: {} };
    const split = { type: "Split", pattern: { Regex: "(a+)+$" }, behavior: "Isolated", invert: false };
    const bpe = { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: [["a", "b"]], continuing_subword_prefix: "##" };
    for (const charsmap of ["AAA", null, "AAAAAA=="]) {
      expect(await reasonFor({ ...wordLevel, normalizer: normalizer(charsmap) })).toMatch(
        /fails on its normalizer "Precompiled"/,
      );
    }
    expect(await reasonFor({ ...wordLevel, post_processor: template })).toMatch(/its post_processor "TemplateProc/);
    expect(await reasonFor({ ...wordLevel, pre_tokenizer: split })).toMatch(/its pre_tokenizer "Split": .*retry-limit/);
    expect(await reasonFor({ ...wordLevel, model: bpe })).toMatch(/fails on its model "BPE"/);
  });

  test("a missing file, invalid JSON, invalid UTF-8 and other JSON each get their own reason", async () => {
    const missing = openTokenizer(join(folder, "no.json"), "no.json", defaults);
    await expect(missing).rejects.toThrow("no.json cannot be used as a tokenizer: it cannot be read (ENOENT)");
    expect(await reasonFor("{")).toBe("it is not valid JSON");
    expect(await reasonFor(Buffer.from([0x22, 0xff, 0x22]))).toBe("it is not UTF-8");
    for (const content of [{}, [], "null", "5"]) expect(await reasonFor(content)).not.toBe("");
    expect(await reasonFor({ ...wordLevel, truncation: { max_length: -1 } })).not.toBe("");
    expect(await reasonFor({ ...wordLevel, padding: "much" })).not.toBe("");
  });

  test("settings that draw at random, leave no room for tokens or fill the memory are named", async () => {
    const gpt2 = fileOf("bpe-gpt2") as { model: object };
    expect(await reasonFor({ ...gpt2, model: { ...gpt2.model, dropout: 0.1 } })).toMatch(/"dropout": 0.1 draws/);
    await open({ ...gpt2, model: { ...gpt2.model, dropout: 0 } });
    expect(await reasonFor(fileOf("wordpiece-bert"), { max_tokens: 2 })).toMatch(
      /2 tokens leaves no room beside 2 special/,
    );
    await open(fileOf("wordpiece-bert"), { max_tokens: 2, special_tokens: false });
    const truncation = { max_length: 0, strategy: "LongestFirst", stride: 0, direction: "Right" };
    expect(await reasonFor({ ...wordLevel, truncation })).toMatch(/0 tokens leaves no room/);
    const padding = { strategy: { Fixed: 1e12 }, direction: "Left", pad_id: 0, pad_type_id: 0, pad_token: "p" };
    expect(await reasonFor({ ...wordLevel, padding })).toMatch(/padding is longer than 1000000 tokens/);
    const huge = { ...padding, strategy: "BatchLongest", pad_to_multiple_of: 1e9 };
    expect(await reasonFor({ ...wordLevel, padding: huge })).toMatch(/padding is longer than 1000000 tokens/);
  });
});

describe("no text crashes a process or throws anything but a refusal", () => {
  const names = ["wordlevel", "wordlevel-without-unk", "added-tokens", "bpe-byte-fallback", "unigram-precompiled"];

  test("with any characters, also halves of surrogate pairs", async () => {
    const all = await Promise.all(
      [...names, "unigram-nmt", "bpe-split", "truncation-only-first"].map((name) => open(fileOf(name))),
    );
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.string({ unit: "grapheme" }),
      fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
      fc.array(fc.constantFrom(...expected.texts)).map((parts) => parts.join("").slice(0, 2000)),
    );
    await fc.assert(
      fc.asyncProperty(text, fc.option(text), async (first, second) => {
        for (const tokenizer of all) {
          const outcome = await tokenizer.encode(first, second).catch((fault) => fault);
          if (outcome instanceof Error) expect(outcome).toBeInstanceOf(InputRefusedError);
          else expect(outcome.ids.every((id: number) => Number.isInteger(id) && id >= 0)).toBe(true);
        }
      }),
      { numRuns: volume(15, 80) },
    );
    for (const bad of [5, null, undefined, {}, Symbol("x")]) {
      await expect((all[0] as (typeof all)[0]).encode(bad as string, null)).rejects.toThrow(InputRefusedError);
    }
  });

  test("a megabyte of text is truncated, and a pair of long texts that needs too much memory is refused", async () => {
    const long = ["x".repeat(1e6), "a ".repeat(5e4), "é".repeat(5e4), "日本".repeat(3e4), "\u0301".repeat(5e4)];
    for (const name of ["unigram-precompiled", "bpe-split", "bpe-byte-fallback"]) {
      const tokenizer = await open(fileOf(name));
      // A run of one character may be one token: unknown, or a word that is too long.
      for (const text of long) expect([512, 3, 4]).toContain((await tokenizer.encode(text, null)).ids.length);
      const both = tokenizer.encode(long[1] as string, long[2] as string);
      if (name === "bpe-byte-fallback") {
        // This tokenizer reads a text as one word, all of it in memory.
        await expect(both).rejects.toThrow("too long for a pair");
        expect((await tokenizer.encode("x", long[1] as string)).ids).toHaveLength(512);
      } else if (name === "bpe-split")
        expect((await tokenizer.encode(long[1] as string, long[1] as string)).ids).toHaveLength(512);
      await both.catch(() => undefined);
    }
  });

  test("a stride without any step, which crashes the library's process, does no harm", async () => {
    const truncation = { max_length: 4, strategy: "LongestFirst", stride: 3, direction: "Left" };
    const tokenizer = await open({ ...fileOf("wordpiece-bert"), truncation });
    const { ids } = await tokenizer.encode("the card was lost", null);
    expect(ids).toHaveLength(4);
    expect(ids.slice(1, 3)).toEqual(
      (await (await open(fileOf("wordpiece-bert"))).encode("the card was lost", null)).ids.slice(3, 5),
    );
  });

  test("a pair without room beside its special tokens is refused, but not its first text alone", async () => {
    const tokenizer = await open(fileOf("unigram-precompiled"), { max_tokens: 3 });
    await expect(tokenizer.encode("the card", "was lost")).rejects.toThrow("a pair has 4 special tokens, more than 3");
    expect((await tokenizer.encode("the card", null)).ids).toHaveLength(3);
  });
});

describe("texts in a running stack", () => {
  let stack: TestStack;
  const echo = (more: object = {}) => ({
    kind: "text",
    input: {
      tokenizer: {
        mask: "attention_mask",
        type_ids: "token_type_ids",
        position_ids: "position_ids",
        max_tokens: 64,
        ...more,
      },
      max_length: 100,
    },
  });
  const models: Record<string, [tokenizer: string, manifest: object]> = {
    words: ["wordlevel", echo()],
    strict: ["wordlevel-without-unk", echo()],
    pairs: ["wordpiece-bert", echo()],
    padded: ["padding-fixed-left", echo()],
    twice: ["wordlevel", echo({ mask: "position_ids" })],
  };
  /** Crashes the library's process at the first text; no caller can catch that. */
  const deadly = { type: "Precompiled", precompiled_charsmap: "AAAAAA==" };

  beforeAll(async () => {
    stack = await TestStack.start({ models: [], workers: 0 });
    await Promise.all(
      Object.entries(models).map(([name, [tokenizer, manifest]]) => addModel(name, fileOf(tokenizer), manifest)),
    );
    await addModel("unknown", { ...fileOf("wordlevel"), normalizer: { type: "Wat" } }, echo());
    await addModel("deadly", { ...fileOf("wordlevel"), normalizer: deadly }, echo());
    await stack.startWorker();
  });
  afterAll(() => stack?.close());

  async function addModel(name: string, tokenizer: object, manifest: object): Promise<void> {
    const version = join(stack.modelsDir, name, "1");
    const source = fileURLToPath(new URL("../fixtures/models/token-echo/1/model.onnx", import.meta.url));
    await mkdir(version, { recursive: true });
    await copyFile(source, join(version, "model.onnx"));
    await writeFile(join(version, "tokenizer.json"), JSON.stringify(tokenizer));
    await writeFile(join(stack.modelsDir, name, "model.json"), JSON.stringify(manifest));
  }

  const outputOf = async (model: string, input: unknown) => {
    const { body } = await stack.predict(model, input);
    expect(body.status, JSON.stringify(body)).toBe("succeeded");
    return body.output;
  };
  const worker = () => stack.workers[0] as TestStack["workers"][number];

  test("a word unknown to a WordLevel model becomes its unknown token or fails alone; no slot ends", async () => {
    const slots = await childrenOf(worker().pid);
    expect((await outputOf("words", "zyzzyva card")).ids).toEqual([[0, expect.any(Number)]]);
    const { body } = await stack.predict("strict", "zyzzyva card");
    expect(body).toMatchObject({ status: "failed", output: null, error: { code: "invalid_input" } });
    expect(body.error.detail).toMatch(/^the tokenizer cannot read this text: /);
    const ended = await runBatch(stack, "strict", ["card", "zyzzyva", "card money"]);
    expect(ended.map(({ status }) => status)).toEqual(["succeeded", "failed", "succeeded"]);
    expect(await childrenOf(worker().pid)).toEqual(slots);
  });

  test("a pair reaches a model with its types, in the data types of the ONNX file", async () => {
    const tokenizer = await open(fileOf("wordpiece-bert"));
    const { ids, typeIds } = await tokenizer.encode("the card", "was lost");
    const pair = await outputOf("pairs", { text: " the card\0", pair: "was lost " });
    expect(pair).toEqual({
      ids: [ids],
      mask: [ids.map(() => 1)],
      types: [typeIds],
      positions: [ids.map((_, i) => i)],
    });
    expect(new Set(typeIds)).toEqual(new Set([0, 1]));
    const alone = await outputOf("pairs", "the card");
    expect(await outputOf("pairs", { text: "the card" })).toEqual(alone);
    expect(alone.types).toEqual([alone.ids[0].map(() => 0)]);
    const mixed = ["the card", { text: "the card", pair: "was lost" }, { text: "a" }];
    const batch = await runBatch(stack, "pairs", mixed);
    for (const [i, { output }] of batch.entries()) {
      const single = await outputOf("pairs", mixed[i]);
      expect(output.ids[0].slice(0, single.ids[0].length)).toEqual(single.ids[0]);
    }
  });

  test("padding of the file is kept, masked, and not counted as positions", async () => {
    const { ids, mask, positions, types } = await outputOf("padded", "the card was lost");
    expect(ids[0]).toHaveLength(32);
    const begin = mask[0].indexOf(1);
    expect(begin).toBeGreaterThan(0);
    expect(mask[0]).toEqual(mask[0].map((_: number, i: number) => (i < begin ? 0 : 1)));
    expect(positions[0]).toEqual(mask[0].map((_: number, i: number) => Math.max(0, i - begin)));
    expect(types[0]).toEqual(mask[0].map((bit: number) => (bit === 0 ? 2 : 0)));
  });

  test("inputs that are no text and no pair are refused with pointers", async () => {
    const refused = async (input: unknown) =>
      pointersOf(assertProblem(await stack.predict("pairs", input), 422, "invalid_input"));
    for (const input of [5, null, ["a", "b"], "", "x".repeat(101)]) expect(await refused(input)).toEqual(["/input"]);
    expect(await refused({})).toEqual(["/input/text"]);
    expect(await refused({ text: "a", pair: null })).toEqual(["/input/pair"]);
    expect(await refused({ text: "", pair: "x".repeat(101), more: 1, "a/b": 2 })).toEqual([
      "/input/a~1b",
      "/input/more",
      "/input/pair",
      "/input/text",
    ]);
  });

  test("a version with an unusable tokenizer is refused with the reason, and others are served", async () => {
    const { refused } = await readiness(worker());
    const reasons = Object.fromEntries(refused.map(({ model, reason }: Record<string, string>) => [model, reason]));
    expect(Object.keys(reasons).sort()).toEqual(["deadly", "twice", "unknown"]);
    expect(reasons.unknown).toMatch(/^tokenizer\.json cannot be used as a tokenizer: .*normalizer "Wat"/);
    expect(reasons.twice).toMatch(/names one tensor twice/);
    expect(reasons.deadly).toMatch(/^tokenizer\.json cannot be used as a tokenizer: .*normalizer "Precompiled"/);
    expect(Object.values(reasons).join()).not.toContain(stack.modelsDir);
  });
});
