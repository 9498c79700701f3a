import { csvFormat, ndjsonFormat, type ResultFormat, utf8Pieces } from "@millrace/api/batches/format-results.js";
import { rowReader } from "@millrace/api/batches/read-rows.js";
import { manifestSchema, type TabularManifest } from "@millrace/shared/models/manifest.js";
import { tabularPacker } from "@millrace/shared/packing/pack-tabular.js";
import { type BulkChunk, decodeChunk, joinParts } from "@millrace/shared/predictions/bulk-chunk.js";
import { addFault, failedLines, type LineFault } from "@millrace/shared/predictions/line-faults.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ndjson, runBatch } from "../support/batches.js";
import { random } from "../support/random.js";
import { healthMs } from "../support/stack/processes.js";
import { keys, TestStack } from "../support/stack/stack.js";

const longest = 64 * 1024 + 1024 * 40;

/** Random outputs of a classifier of `width` labels, with faults among them. */
function classesOf(lines: number, width: number): { chunk: BulkChunk; scores: number[][]; best: number[] } {
  const r = random(lines + width);
  const faults: LineFault[] = [];
  for (let offset = 0; offset < lines; offset++) {
    if (r.below(5) === 0) addFault(faults, offset, "invalid_input", `line ${offset >> 1}`);
  }
  const rows = lines - failedLines(faults);
  const record = 2 + 4 * width;
  const body = Buffer.alloc(rows * record);
  const best = Array.from({ length: rows }, () => r.below(width));
  const scores = best.map((at, row) => {
    body.writeUInt16LE(at, row * record);
    return Array.from({ length: width }, (_, c) => {
      body.writeFloatLE(r.unit(), row * record + 2 + 4 * c);
      return body.readFloatLE(row * record + 2 + 4 * c);
    });
  });
  return { chunk: { start: 0, lines, faults, origins: null, form: "classes", width, body }, scores, best };
}

/** The whole text; asserts length, `whole` and line count of each piece. */
function textOf(format: ResultFormat, chunk: BulkChunk, from = 0, to = Number.POSITIVE_INFINITY) {
  let text = "";
  let lines = 0;
  for (const piece of format.chunk(chunk, 100, from, to)) {
    expect(piece.text.length).toBeLessThan(longest);
    text += piece.text;
    lines += piece.lines;
    expect(piece.whole).toBe(text.endsWith("\n"));
    expect(text.split("\n").length - 1).toBe(lines);
  }
  return { text, lines };
}

describe("results in pieces", () => {
  test.each([2, 15, 1024, 1025, 20_000])("of %i labels make up the whole text, from any line to any other", (width) => {
    const labels = Array.from({ length: width }, (_, i) => (i === 1 ? 'a,"b\u2028' : `label-${i}`));
    const { best, chunk, scores } = classesOf(12, width);
    const lines: unknown[] = [];
    let row = 0;
    for (let offset = 0; offset < 12; offset++) {
      const fault = chunk.faults.find((each) => each.offset <= offset && offset < each.offset + each.count);
      const index = 100 + offset;
      if (fault !== undefined) {
        const { code, detail } = fault;
        lines.push({ index, status: "failed", output: null, error: { code, detail } });
        continue;
      }
      const probabilities = Object.fromEntries(labels.map((label, c) => [label, scores[row]?.[c]]));
      const label = labels[best[row] as number] as string;
      const output = { label, confidence: probabilities[label], probabilities };
      lines.push({ index, status: "succeeded", output, error: null });
      row += 1;
    }
    for (const [from, to] of [
      [0, 12],
      [3, 12],
      [0, 5],
      [4, 9],
      [5, 5],
    ] as const) {
      const { lines: count, text } = textOf(ndjsonFormat(labels), chunk, from, to);
      expect(count).toBe(to - from);
      // toEqual takes minutes for so many members.
      expect(
        text
          .split("\n")
          .slice(0, -1)
          .map((line) => JSON.stringify(JSON.parse(line))),
      ).toEqual(lines.slice(from, to).map((line) => JSON.stringify(line)));
      expect(textOf(csvFormat(labels), chunk, from, to).lines).toBe(to - from);
    }
  });

  test("of long JSON make up the whole text, with characters of any length at every border", () => {
    const r = random(5);
    const outputs = Array.from({ length: 20 }, () => ({
      text: Array.from({ length: r.below(40_000) }, () => r.pick(["a", "é", "日", "😀", '"', "\n", "\u2028"])).join(""),
    }));
    const body = joinParts(outputs.map((output) => Buffer.from(JSON.stringify(output))));
    const chunk: BulkChunk = { start: 0, lines: 20, faults: [], origins: null, form: "json", width: 0, body };
    const { text } = textOf(ndjsonFormat(null), chunk);
    expect(text.split(/[\n\u0085\u2028\u2029]/)).toHaveLength(21);
    const lines = text.trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line).output)).toEqual(outputs);
    const csv = textOf(csvFormat(null), chunk).text;
    expect(
      csv
        .split("\r\n")
        .slice(0, -1)
        .map((line) => {
          const field = /^\d+,succeeded,"(.*)"$/.exec(line)?.[1] as string;
          return JSON.parse(field.replaceAll('""', '"'));
        }),
    ).toEqual(outputs);
  });

  test.each([1, 2, 3, 4, 7])("of UTF-8 never end within a character: at most 4 + %i bytes", (extra) => {
    const text = "a😀é日𝄞b".repeat(50);
    const pieces = [...utf8Pieces(Buffer.from(text), 4 + extra)];
    expect(pieces.join("")).toBe(text);
    for (const piece of pieces) expect(Buffer.byteLength(piece)).toBeLessThanOrEqual(4 + extra);
  });
});

test("the rows of a chunk are limited so that its outputs stay within 1 MiB, for any head", () => {
  const labels = (count: number) => Array.from({ length: count }, (_, i) => `l${i}`);
  const rowsAtOnce = (output: object, width?: number) => {
    const manifest = manifestSchema.parse({
      kind: "tabular",
      input: { tensor: "x", features: ["a"] },
      output,
    }) as TabularManifest;
    const lines: number[] = [];
    const outputs = width === undefined ? [] : [{ name: "y", dtype: "float32" as const, shape: ["N", width] }];
    const reader = rowReader(
      { manifest, pack: tabularPacker(manifest), outputs },
      ({ bytes }) => {
        lines.push(decodeChunk(bytes).lines);
      },
      { sentBytes: () => Number.POSITIVE_INFINITY },
    );
    for (let i = 0; i < 3000; i++) reader.readJson(Buffer.from("[1]\n"), 0, 3);
    reader.builder.end();
    return lines[0] as number;
  };
  const classifier = (count: number) => ({ head: "classifier", probabilities: "y", labels: labels(count) });
  expect(rowsAtOnce(classifier(15), 15)).toBe(2048);
  expect(rowsAtOnce(classifier(20_000), 20_000)).toBe(13);
  expect(rowsAtOnce(classifier(100_000), 100_000)).toBe(2);
  expect(rowsAtOnce({ head: "raw" }, 262_144)).toBe(1);
  expect(rowsAtOnce({ head: "raw" })).toBe(2048);
});

describe("a batch with long results", () => {
  const model = "dynamic-inner";
  const width = 20_000;
  const rows = 120;
  let stack: TestStack;
  beforeAll(async () => {
    stack = await TestStack.start({ models: [model] });
  });
  afterAll(() => stack.close());

  test("is read in any format while the API answers others at once", async () => {
    const inputs = Array.from({ length: rows }, (_, i) => ({
      x: [Array.from({ length: width }, (_, k) => i + k / 8)],
    }));
    const { id, results } = await runBatch(stack, model, ndjson(inputs));
    expect(results).toHaveLength(rows);
    const read = async (accept: string) => {
      const headers = { authorization: `Bearer ${keys.alice}`, accept };
      const response = await fetch(`${stack.url}/v1/batches/${id}/results`, { headers });
      expect(response.status).toBe(200);
      return response.text();
    };
    let reading = true;
    let answers = 0;
    const probing = (async () => {
      for (; reading; answers++) await healthMs(stack);
    })();
    const [lines, csv, page] = await Promise.all(["application/x-ndjson", "text/csv", "application/json"].map(read));
    reading = false;
    await probing;
    expect(lines?.trimEnd().split("\n")).toHaveLength(rows);
    expect(csv?.trimEnd().split("\r\n")).toHaveLength(rows + 1);
    const { data, next_cursor: next } = JSON.parse(page as string);
    expect(data.length).toBeGreaterThan(10);
    expect(next).toBe(String(data.length));
    for (const { index, output } of data) expect(output.y[0][8]).toBe(index + 2);
    // An API that made each result in one go would answer once or twice between them. A busy machine slows down both.
    expect(answers).toBeGreaterThan(8);
  });
});
