import { csvRecords } from "@millrace/api/batches/csv-rows.js";
import { rowReader, type TableReader } from "@millrace/api/batches/read-rows.js";
import { EnvelopeSplitter } from "@millrace/api/batches/split-envelope.js";
import { LineSplitter } from "@millrace/api/batches/split-lines.js";
import { RecordSplitter } from "@millrace/api/batches/split-records.js";
import { manifestSchema, type TabularManifest } from "@millrace/shared/models/manifest.js";
import { type Feature, featuresOf, tabularPacker } from "@millrace/shared/packing/pack-tabular.js";
import { decodeChunk } from "@millrace/shared/predictions/bulk-chunk.js";
import { faultlessOffsets } from "@millrace/shared/predictions/line-faults.js";
import { unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { expect, test } from "vitest";
import { pieces } from "../support/http/pieces.js";
import { type Random, random } from "../support/random.js";

const names = ["a", "b", " c", "d,e", 'f"g', "10", "2", "__proto__", "constructor", "é"];
const days = ["2026-01-31", "2024-02-29T01:02:03Z"];

/** A random manifest: a few features of all types, with and without bounds and defaults. */
function manifestOf(r: Random): TabularManifest {
  const features = names
    .filter(() => r.below(3) === 0)
    .map((name) => {
      const type = r.pick(["number", "number", "number", "category", "date"] as const);
      const hasDefault = r.below(2) === 0;
      if (type === "category") {
        return { name, type, values: [" x", "x", "y"], ...(hasDefault && { default: r.pick([" x", "y"]) }) };
      }
      if (type === "date") return { name, type, part: "epoch_days", ...(hasDefault && { default: r.pick(days) }) };
      return { name, ...(r.below(3) === 0 && { min: -5, max: 50 }), ...(hasDefault && { default: r.below(50) }) };
    });
  return manifestSchema.parse({
    kind: "tabular",
    input: { tensor: "x", features: features.length === 0 ? ["only"] : features },
    batching: { bulk_rows: r.pick([1, 2, 1000]) },
  }) as TabularManifest;
}

/** A value that is mostly valid for the feature. */
function someValue(r: Random, { type }: Feature): unknown {
  if (r.below(25) === 0) return r.pick([null, "z", true, 1e40, -6, "2026-02-30"]);
  if (type === "category") return r.pick([" x", "x", "y"]);
  if (type === "date") return r.pick(days);
  return r.pick([r.below(10), r.below(50), r.below(500) / 10, -r.below(5), 1e-3]);
}

/** A reader and the rows of its chunks: the numbers of each line, or null for a fault. */
function rowsIn(manifest: TabularManifest) {
  const rows: (number[] | null)[] = [];
  const reader = rowReader(
    { manifest, pack: tabularPacker(manifest) },
    ({ bytes }) => {
      const chunk = decodeChunk(Buffer.from(bytes));
      const begin = rows.length;
      for (let i = 0; i < chunk.lines; i++) rows.push(null);
      const offsets = faultlessOffsets(chunk);
      const [tensor] = offsets.length === 0 ? [] : unpackTensors(Buffer.from(chunk.body));
      const numbers = new Float32Array(Uint8Array.from(tensor?.bytes ?? []).buffer);
      const width = featuresOf(manifest).length;
      for (const [row, offset] of offsets.entries()) {
        rows[begin + offset] = [...numbers.subarray(row * width, (row + 1) * width)];
      }
    },
    { sentBytes: () => Number.POSITIVE_INFINITY },
  ) as TableReader;
  return { reader, rows };
}

/** The rows according to the packer of single predictions. */
function expectedRows(manifest: TabularManifest, inputs: readonly unknown[]): (number[] | null)[] {
  const pack = tabularPacker(manifest);
  return inputs.map((input) => {
    const packed = pack(input);
    if (!("pack" in packed)) return null;
    return [...new Float32Array(Uint8Array.from(unpackTensors(packed.pack)[0]?.bytes ?? []).buffer)];
  });
}

/** JSON of an object with its members in this order, which JavaScript objects do not keep for integer-like names. */
const objectText = (members: readonly [string, unknown][]): string =>
  `{${members.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(",")}}`;

function same(seen: unknown, wanted: unknown, about: unknown): void {
  if (JSON.stringify(seen) !== JSON.stringify(wanted)) expect(seen, JSON.stringify(about)).toEqual(wanted);
}

test("rows read in bulk are those of single predictions, in JSON and NDJSON, 4,000 models at random", () => {
  const r = random(31);
  for (let round = 0; round < 4000; round++) {
    const manifest = manifestOf(r);
    const features = featuresOf(manifest);
    const order = [...features.keys()].sort(() => r.unit() - 0.5);
    const texts = Array.from({ length: 8 }, () => {
      if (r.below(4) === 0) return JSON.stringify(features.map((feature) => someValue(r, feature)));
      // Mostly in the sender's order, at times with a missing, unknown or duplicate member.
      const members = order
        .map((i) => features[i] as Feature)
        .filter((feature) => r.below(feature.default === undefined ? 25 : 2) > 0)
        .map((feature): [string, unknown] => [feature.name, someValue(r, feature)]);
      if (r.below(12) === 0) members.push(["unknown", 1]);
      return r.pick(["", "", " "]) + objectText(members);
    });
    const wanted = expectedRows(
      manifest,
      texts.map((text) => JSON.parse(text)),
    );

    const lines = rowsIn(manifest);
    const splitter = new LineSplitter({ longestLineBytes: 1e4, onLine: lines.reader.readJson, onTooLong: () => {} });
    for (const piece of pieces(Buffer.from(texts.join("\n")), r)) splitter.push(piece);
    splitter.end();
    lines.reader.builder.end();
    same(lines.rows, wanted, [manifest, texts]);

    const elements = rowsIn(manifest);
    const envelope = new EnvelopeSplitter({
      longestElementBytes: 1e4,
      longestOptionsBytes: 1e4,
      onInputs: () => {},
      readElement: (bytes, from, to) => elements.reader.readUnbounded?.(bytes, from, to) ?? -1,
      onElement: elements.reader.readJson,
      onTooLong: () => {},
    });
    for (const piece of pieces(Buffer.from(`{"inputs":[${texts}]}`), r)) envelope.push(piece);
    envelope.end();
    elements.reader.builder.end();
    same(elements.rows, wanted, [manifest, texts]);
  }
});

test("a duplicate member is a fault of its row in bulk, whatever members earlier rows had", () => {
  const manifest = manifestSchema.parse({
    kind: "tabular",
    input: { tensor: "x", features: ["a", { name: "b", default: 5 }] },
  }) as TabularManifest;
  const { reader, rows } = rowsIn(manifest);
  const texts = ['{"a":1,"b":2}', '{"a":3,"b":4}', '{"a":5,"a":6}', ' {"a":7,"a":8}', '{"a":9}', '{"a":10}', '{"b":1}'];
  for (const text of texts) reader.readJson(Buffer.from(`${text}\n`), 0, text.length);
  reader.builder.end();
  expect(rows).toEqual([[1, 2], [3, 4], null, null, [9, 5], [10, 5], null]);
});

test("rows of CSV are those of single predictions, with columns in any order, 4,000 models at random", () => {
  const r = random(32);
  const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`;
  for (let round = 0; round < 4000; round++) {
    const manifest = manifestOf(r);
    const features = featuresOf(manifest);
    const columns = [...features.keys()]
      .sort(() => r.unit() - 0.5)
      .map((i) => features[i] as Feature)
      .filter((feature) => feature.default === undefined || r.below(3) > 0);
    if (columns.length === 0) continue;
    const inputs = Array.from({ length: 6 }, () =>
      columns
        .filter(() => r.below(20) > 0)
        .map((feature): [string, unknown] => [feature.name, someValue(r, feature)])
        // CSV has no null and no booleans.
        .filter(([, value]) => typeof value === "string" || typeof value === "number"),
    );
    const lines = inputs.map((members) => {
      const given = new Map(members);
      return columns
        .map(({ name }) => (given.has(name) ? r.pick([String, quoted])(String(given.get(name))) : ""))
        .join(",");
    });
    const header = columns.map(({ name }) => (/[",]/.test(name) ? quoted(name) : name)).join(",");
    const { reader, rows } = rowsIn(manifest);
    const splitter = new RecordSplitter({
      longestRecordBytes: 1e4,
      onRecord: csvRecords(reader),
      onTooLong: () => {},
    });
    for (const piece of pieces(Buffer.from([header, ...lines].join("\n")), r)) splitter.push(piece);
    // An empty last line exists only with its line end.
    splitter.push(Buffer.from("\n"));
    splitter.end();
    reader.builder.end();
    const kept = inputs.filter((_, i) => lines[i] !== "" || columns.length === 1);
    same(
      rows,
      expectedRows(
        manifest,
        kept.map((members) => Object.fromEntries(members)),
      ),
      [manifest, header, lines],
    );
  }
});
