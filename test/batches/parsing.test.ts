import { csvRecords } from "@millrace/api/batches/csv-rows.js";
import { readsTable, rowReader, type TableReader } from "@millrace/api/batches/read-rows.js";
import { EnvelopeSplitter } from "@millrace/api/batches/split-envelope.js";
import { LineSplitter } from "@millrace/api/batches/split-lines.js";
import { RecordSplitter } from "@millrace/api/batches/split-records.js";
import { manifestSchema, type TabularManifest } from "@millrace/shared/models/manifest.js";
import { tabularPacker } from "@millrace/shared/packing/pack-tabular.js";
import type { Packer } from "@millrace/shared/packing/packer.js";
import {
  type BulkChunk,
  decodeChunk,
  encodeChunk,
  joinParts,
  shrinkChunk,
  splitParts,
} from "@millrace/shared/predictions/bulk-chunk.js";
import { addFault, failedLines, faultlessOffsets, type LineFault } from "@millrace/shared/predictions/line-faults.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { describe, expect, test } from "vitest";
import { pieces } from "../support/http/pieces.js";
import { type Random, random } from "../support/random.js";

type Feature = string | { name: string; min?: number; max?: number };

const manifestFor = (features: readonly Feature[], bulkRows = 7): TabularManifest =>
  manifestSchema.parse({
    kind: "tabular",
    input: { tensor: "x", features },
    batching: { bulk_rows: bulkRows },
  }) as TabularManifest;

/** A reader and its lines: the numbers of each, or the code of its fault. */
function tableOf(features: readonly Feature[], bulkRows?: number) {
  const manifest = manifestFor(features, bulkRows);
  const chunks: BulkChunk[] = [];
  const reader = rowReader(
    { manifest, pack: tabularPacker(manifest) },
    ({ bytes, lines, number }) => {
      expect(number).toBe(chunks.length);
      const chunk = decodeChunk(Buffer.from(bytes));
      expect([chunk.lines, chunk.form, chunk.origins]).toEqual([lines, "table", null]);
      expect(chunk.start).toBe(chunks.reduce((sum, before) => sum + before.lines, 0));
      chunks.push(chunk);
    },
    { sentBytes: () => Number.POSITIVE_INFINITY },
  ) as TableReader;
  expect(readsTable(reader)).toBe(true);
  return {
    reader,
    lines(): (number[] | string)[] {
      reader.builder.end();
      return chunks.flatMap((chunk) => linesOf(chunk, features.length));
    },
  };
}

function linesOf(chunk: BulkChunk, width: number): (number[] | string)[] {
  const lines: (number[] | string)[] = new Array(chunk.lines).fill("missing");
  for (const { code, count, offset } of chunk.faults) lines.fill(code, offset, offset + count);
  const offsets = faultlessOffsets(chunk);
  if (offsets.length === 0) return lines;
  const [tensor] = unpackTensors(Buffer.from(chunk.body));
  expect(tensor).toMatchObject({ name: "x", dtype: "float32", shape: [offsets.length, width] });
  const bytes = tensor?.bytes as Uint8Array;
  const numbers = new Float32Array(Uint8Array.from(bytes).buffer);
  for (const [row, offset] of offsets.entries()) lines[offset] = [...numbers.subarray(row * width, (row + 1) * width)];
  return lines;
}

/** The numbers or fault of a line of JSON, by `JSON.parse` and the packer of single predictions. */
function expected(line: string, pack: Packer): number[] | string {
  let input: unknown;
  try {
    input = JSON.parse(line);
  } catch {
    return "malformed_json";
  }
  // `JSON.parse` takes the second of two members of the same name; the reader refuses both.
  if (/"a":.*"a":/.test(line)) return "invalid_input";
  const packed = pack(input);
  if (!("pack" in packed)) return "invalid_input";
  const [tensor] = unpackTensors(packed.pack);
  return [...new Float32Array(Uint8Array.from(tensor?.bytes as Uint8Array).buffer)];
}

/** A number in any spelling, mostly valid JSON. */
function numberText(r: Random): string {
  const digits = (count: number) => Array.from({ length: count }, () => r.below(10)).join("");
  const sign = r.below(3) === 0 ? "-" : "";
  switch (r.below(12)) {
    case 0:
      return `${sign}${r.below(10)}`;
    case 1:
      return `${sign}${r.below(2 ** 31)}`;
    case 2:
      return `${sign}${1 + r.below(9)}${digits(r.below(25))}`;
    case 3:
      return `${sign}${r.below(1000)}.${digits(1 + r.below(20))}`;
    case 4:
      return `${sign}0.${"0".repeat(r.below(30))}${digits(1 + r.below(18))}`;
    case 5: {
      const whole = `${sign}${r.below(10)}${r.below(2) ? `.${digits(1 + r.below(17))}` : ""}`;
      return `${whole}${r.pick(["e", "E"])}${r.pick(["", "+", "-"])}${r.below(50)}`;
    }
    case 6: {
      // Halfway between two floats, or next to it, where double rounding gives another result.
      const float = Math.fround(r.unit() * 2 ** (r.below(60) - 30));
      const half = float + float * 2 ** -24;
      const beside = half * (1 + r.pick([-40, -17, -16, -2, -1, 1, 2, 16, 17, 40]) * 2 ** -52);
      const texts = [half, beside].flatMap((value) => [String(value), value.toPrecision(17), value.toPrecision(21)]);
      return r.pick([...texts, String(float)]);
    }
    case 7:
      return String((r.unit() - 0.5) * 10 ** (r.below(90) - 45));
    case 8:
      return r.pick([
        "3.4028234663852886e38",
        "3.4028235677973366e38",
        "3.4028235677973362e38",
        "1e-45",
        "7.006492321624085e-46",
        "9007199254740993",
        "9007199254740991",
        "123456789",
        "1234567890",
        "999999999.5",
        "1e22",
        "1e23",
        "-0",
        "0.0",
        "-0.0e-5",
        "-1000.00000000000001",
        "-1000.0000000000002",
        "1000000.00000000001",
        "1000000.0000000002",
      ]);
    case 9:
      return r.pick(["1e39", "1e400", "-1e400", "1e-400", "0e999999999999999999999"]);
    default:
      return String(r.below(100_000) / r.pick([1, 10, 1000]));
  }
}

/** Texts that are not JSON numbers. */
const strays = [
  "01",
  "-",
  "+1",
  ".5",
  "1.",
  "1e",
  "1e+",
  "--1",
  "0x10",
  "NaN",
  "Infinity",
  "null",
  '"1"',
  "[1]",
  "{}",
  "",
];

const spaces = (r: Random) => r.pick(["", "", "", " ", "  ", "\t"]);

describe("rows of JSON", () => {
  const features: Feature[] = ["a", { name: "b c", min: -1000 }, { name: 'd"é', max: 1e6 }, "e"];
  const names = features.map((feature) => (typeof feature === "string" ? feature : feature.name));

  function line(r: Random): string {
    const odd = r.below(8) === 0;
    const width = odd && r.below(2) === 0 ? r.below(7) : 4;
    const values = Array.from({ length: width }, () => (odd && r.below(4) === 0 ? r.pick(strays) : numberText(r)));
    if (r.below(3) > 0)
      return `[${spaces(r)}${values.map((v) => `${v}${spaces(r)}`).join(`,${spaces(r)}`)}]${spaces(r)}`;
    const order = r.below(4) === 0 ? [...names].reverse() : names;
    const members = values.map((v, i) => {
      const name = odd && r.below(6) === 0 ? r.pick(["a", "unknown", "__proto__"]) : (order[i] ?? "more");
      return `${JSON.stringify(name)}:${r.below(5) === 0 ? " " : ""}${v}`;
    });
    return `{${members.join(r.below(5) === 0 ? ", " : ",")}}`;
  }

  test("are the same as by JSON.parse and the packer of single predictions, 8,000 at random", () => {
    const r = random(1);
    const pack = tabularPacker(manifestFor(features));
    const table = tableOf(features);
    const lines = Array.from({ length: 8000 }, () => line(r));
    for (const text of lines) {
      // Digits, quotes and brackets around the line must not be read as part of it.
      const before = r.pick(["", "1", '"', "[", ","]);
      const after = r.pick(["", "\n", "0", "]", ",", ".5", "e9"]);
      const bytes = Buffer.from(before + text + (text === "" ? "" : after));
      table.reader.readJson(bytes, before.length, before.length + Buffer.byteLength(text));
    }
    const read = table.lines();
    expect(read).toHaveLength(lines.length);
    let valid = 0;
    for (const [i, text] of lines.entries()) {
      const wanted = expected(text, pack);
      if (typeof wanted !== "string") valid += 1;
      expect(read[i], text).toEqual(wanted);
    }
    expect(valid / lines.length).toBeGreaterThan(0.3);
    expect(valid / lines.length).toBeLessThan(0.95);
  });

  test("are the same within an envelope in any pieces, 4,000 at random", () => {
    const r = random(21);
    const pack = tabularPacker(manifestFor(features));
    const isJson = (text: string) => expected(text, pack) !== "malformed_json";
    let onTheWay = 0;
    for (let round = 0; round < 40; round++) {
      const lines = Array.from({ length: 100 }, () => line(r)).filter(isJson);
      const table = tableOf(features);
      const splitter = new EnvelopeSplitter({
        ...{ longestElementBytes: 1e6, longestOptionsBytes: 100, onInputs() {}, onTooLong() {} },
        readElement(bytes, from, to) {
          const end = table.reader.readUnbounded?.(bytes, from, to) ?? -1;
          if (end >= 0) onTheWay += 1;
          return end;
        },
        onElement: table.reader.readJson,
      });
      const text = `{"inputs":[${lines.map((element) => `${spaces(r)}${element}${spaces(r)}`).join(",")}]}`;
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; ) {
        const end = at + 1 + r.below(r.pick([20, 300, 5000]));
        splitter.push(Buffer.from(bytes.subarray(at, end)));
        at = end;
      }
      splitter.end();
      expect(table.lines()).toEqual(lines.map((element) => expected(element, pack)));
    }
    expect(onTheWay).toBeGreaterThan(200);
  });

  test.each([
    ["1e39 is beyond float32", "[1e39,1,1,1]", "invalid_input"],
    ["a bound is checked against the number as sent", "[1,-1000.0000001,1,1]", "invalid_input"],
    ["a string of digits is no number", '["1",1,1,1]', "invalid_input"],
    ["a row too short", "[1,1,1]", "invalid_input"],
    ["a row too long", "[1,1,1,1,1]", "invalid_input"],
    ["a row that does not end", "[1,1,1,1", "malformed_json"],
    ["two rows", "[1,1,1,1] [1,1,1,1]", "malformed_json"],
    ["nesting 200,000 deep", `${"[".repeat(200_000)}${"]".repeat(200_000)}`, "invalid_input"],
    ["nesting that does not end", "[".repeat(200_000), "malformed_json"],
  ])("%s", (_what, text, code) => {
    const table = tableOf(features);
    table.reader.readJson(Buffer.from("[1,1,1,1]"), 0, 9);
    table.reader.readJson(Buffer.from(text), 0, Buffer.byteLength(text));
    table.reader.readJson(Buffer.from("[2,2,2,2]"), 0, 9);
    expect(table.lines()).toEqual([[1, 1, 1, 1], code, [2, 2, 2, 2]]);
  });
});

describe("lines", () => {
  const read = (cut: readonly Buffer[], options: { longest?: number } = {}) => {
    const lines: (string | null)[] = [];
    const splitter = new LineSplitter({
      longestLineBytes: options.longest ?? 1000,
      onLine: (bytes, from, to) => lines.push(bytes.toString("utf8", from, to)),
      onTooLong: () => lines.push(null),
    });
    for (const piece of cut) splitter.push(piece);
    splitter.end();
    return lines;
  };

  test("are the same in any pieces, with LF, CRLF, a byte order mark and no last line end", () => {
    const r = random(2);
    for (let round = 0; round < 1000; round++) {
      const lines = Array.from({ length: r.below(8) }, () =>
        r.pick(["", "1", "[1,2]", "é日本", 'x"y', "z".repeat(r.below(60))]),
      );
      const text =
        (r.below(3) === 0 ? "\ufeff" : "") +
        lines.map((line) => line + r.pick(["\n", "\r\n"])).join("") +
        (r.below(2) === 0 ? "last" : "");
      const wanted = text
        .replace(/^\ufeff/, "")
        .split(/\r?\n/)
        .filter((line) => line !== "");
      expect(read(pieces(Buffer.from(text), r)), JSON.stringify(text)).toEqual(wanted);
      expect(read([Buffer.from(text)]), JSON.stringify(text)).toEqual(wanted);
    }
  });

  test.each(["", "\n", "\r\n", "\n\n", "\r\n\r\n", "\ufeff", "\ufeff\n"])("%j holds none", (text) => {
    expect(read([Buffer.from(text)])).toEqual([]);
    expect(read([...Buffer.from(text)].map((byte) => Buffer.of(byte)))).toEqual([]);
  });

  test("a line that is too long is reported once and skipped, in any pieces, and the next are read", () => {
    const r = random(3);
    for (let round = 0; round < 500; round++) {
      const lengths = Array.from({ length: 6 }, () => r.pick([1, 49, 50, 51, 500]));
      const text = lengths.map((length) => "x".repeat(length)).join("\n");
      const wanted = lengths.map((length) => (length > 50 ? null : "x".repeat(length)));
      expect(read(pieces(Buffer.from(text), r), { longest: 50 })).toEqual(wanted);
    }
  });
});

describe("the JSON envelope", () => {
  interface Read {
    elements: string[];
    options?: Record<string, unknown>;
    before?: string[];
    fault?: string;
  }

  function read(cut: readonly Buffer[], longest = 1000): Read {
    const elements: string[] = [];
    let options: Record<string, unknown> | undefined;
    const splitter = new EnvelopeSplitter({
      longestElementBytes: longest,
      longestOptionsBytes: 2000,
      onInputs: (before) => {
        options = before;
      },
      onElement: (bytes, from, to) => {
        const text = bytes.toString("utf8", from, to);
        try {
          JSON.parse(text);
        } catch {
          throw new ServiceError("malformed_json", "no JSON");
        }
        elements.push(text);
      },
      onTooLong: () => elements.push("too long"),
    });
    try {
      for (const piece of cut) splitter.push(piece);
      return { elements, options: splitter.end(), before: Object.keys(options as Record<string, unknown>) };
    } catch (fault) {
      expect(fault).toBeInstanceOf(ServiceError);
      return { elements, fault: (fault as ServiceError).code };
    }
  }

  function value(r: Random, depth: number): unknown {
    const kind = r.below(depth > 3 ? 5 : 7);
    if (kind === 0) return r.below(1000) / 10;
    if (kind === 1) return r.pick([null, true, false]);
    if (kind < 5) return r.pick(["", "[", "]}", '"', '\\"', ",", "inputs", '"inputs":[1]', "é\n\u0001"]);
    const children = Array.from({ length: r.below(4) }, () => value(r, depth + 1));
    return kind === 5
      ? children
      : Object.fromEntries(children.map((child, i) => [r.pick(["inputs", "a", '"', "]"]) + i, child]));
  }

  test("gives the elements and options of JSON.parse, in any pieces and layout", () => {
    const r = random(5);
    for (let round = 0; round < 700; round++) {
      const inputs = Array.from({ length: r.below(6) }, () => value(r, 0));
      const entries: [string, unknown][] = [["inputs", inputs]];
      for (const name of ["metadata", "webhook", "version"]) if (r.below(2)) entries.push([name, value(r, 1)]);
      if (r.below(2)) entries.reverse();
      const envelope = Object.fromEntries(entries);
      const text = JSON.stringify(envelope, null, r.pick([0, 0, 1, "\t"]));
      const { inputs: _inputs, ...options } = envelope;
      const names = Object.keys(envelope);
      const found = read(pieces(Buffer.from(text), r));
      expect(found.fault, text).toBeUndefined();
      expect(
        found.elements.map((element) => JSON.parse(element)),
        text,
      ).toEqual(inputs);
      expect(found.options).toEqual(options);
      expect(found.before).toEqual(names.slice(0, names.indexOf("inputs")));
    }
  });

  test("with a missing, additional or changed character is refused if JSON.parse refuses it", () => {
    const r = random(6);
    let refused = 0;
    for (let round = 0; round < 3000; round++) {
      const inputs = Array.from({ length: 1 + r.below(3) }, () => value(r, 2));
      const text = JSON.stringify({ a: value(r, 2), inputs, b: value(r, 2) }, null, r.pick([0, 1]));
      const at = r.below(text.length);
      const stray = r.pick(["", ",", "[", "]", "{", "}", '"', ":", "1", "\\", " "]);
      const broken = text.slice(0, at) + stray + text.slice(at + r.below(2));
      let parsed: { inputs?: unknown } | undefined;
      try {
        parsed = JSON.parse(broken);
      } catch {}
      const found = read(pieces(Buffer.from(broken), r));
      if (parsed === undefined) {
        refused += 1;
        expect(found.fault, broken).toMatch(/^(malformed_json|invalid_request)$/);
      } else if (Array.isArray(parsed.inputs)) {
        expect(found.fault, broken).toBeUndefined();
        expect(
          found.elements.map((element) => JSON.parse(element)),
          broken,
        ).toEqual(parsed.inputs);
      } else expect(found.fault, broken).toBe("invalid_request");
    }
    expect(refused).toBeGreaterThan(500);
  });

  test.each([
    ["nothing", "", "malformed_json"],
    ["an array", "[[1],[2]]", "invalid_request"],
    ["no inputs", '{"input":[1]}', "invalid_request"],
    ["inputs that are an object", '{"inputs":{"0":1}}', "invalid_request"],
    ["inputs twice", '{"inputs":[1],"inputs":[2]}', "invalid_request"],
    ["a second value", '{"inputs":[1]}{"inputs":[2]}', "malformed_json"],
    ["a body that ends within an input", '{"inputs":[1,[2', "malformed_json"],
    ["a body that ends after the inputs", '{"inputs":[1]', "malformed_json"],
    ["a comma before the end", '{"inputs":[1,]}', "malformed_json"],
    ["a comma at the beginning", '{"inputs":[,1]}', "malformed_json"],
    ["options that are too large", `{"metadata":"${"x".repeat(3000)}","inputs":[1]}`, "body_too_large"],
  ])("refuses %s", (_what, text, code) => {
    expect(read([Buffer.from(text)]).fault).toBe(code);
    expect(read([...Buffer.from(text)].map((byte) => Buffer.of(byte))).fault).toBe(code);
  });

  test("after a byte order mark is read", () => {
    expect(read([Buffer.from('\ufeff{"inputs":[1],"version":"2"}')])).toMatchObject({
      elements: ["1"],
      options: { version: "2" },
    });
  });

  test("with an input that is too long reports it at its index, and the others are read", () => {
    const r = random(7);
    for (let round = 0; round < 300; round++) {
      const lengths = Array.from({ length: 5 }, () => r.pick([2, 49, 50, 51, 300]));
      const text = JSON.stringify({ inputs: lengths.map((length) => "x".repeat(length - 2)) });
      const wanted = lengths.map((length) => (length > 50 ? "too long" : JSON.stringify("x".repeat(length - 2))));
      expect(read(pieces(Buffer.from(text), r), 50).elements).toEqual(wanted);
    }
  });
});

describe("rows of CSV", () => {
  const features: Feature[] = ["a", { name: "b, c", min: -1000 }, { name: 'd"é', max: 1e6 }, "e"];

  function readCsv(text: string, r: Random = random(0)) {
    const table = tableOf(features);
    const splitter = new RecordSplitter({
      longestRecordBytes: 1000,
      onRecord: csvRecords(table.reader),
      onTooLong: () => table.reader.builder.addFault("row_too_large", "too long"),
    });
    for (const piece of pieces(Buffer.from(text), r)) splitter.push(piece);
    splitter.end();
    return table.lines();
  }
  const header = 'a,"b, c","d""é",e\r\n';

  test("give the same numbers as in JSON, in any column order, quoted or not, 3,000 at random", () => {
    const r = random(8);
    const pack = tabularPacker(manifestFor(features));
    const names = ["a", '"b, c"', '"d""é"', "e"];
    for (let round = 0; round < 60; round++) {
      const order = [0, 1, 2, 3].sort(() => r.unit() - 0.5);
      const rows = Array.from({ length: 50 }, () => Array.from({ length: 4 }, () => numberText(r)));
      const end = r.pick(["\n", "\r\n"]);
      const write = (text: string) => r.pick([text, text, text, `"${text}"`, ` ${text} `]);
      const lines = rows.map((row) => order.map((i) => write(row[i] as string)).join(","));
      const text = [order.map((i) => names[i]).join(","), ...lines].join(end) + r.pick(["", end, end + end]);
      expect(readCsv(text, r), text).toEqual(rows.map((row) => expected(`[${row}]`, pack)));
    }
  });

  test.each([
    ["an empty field", "1,,3,4", "invalid_input"],
    ["a word", "1,two,3,4", "invalid_input"],
    ["a number with a digit separator", "1,1_000,3,4", "invalid_input"],
    ["hexadecimal", "0x10,2,3,4", "invalid_input"],
    ["NaN", "NaN,2,3,4", "invalid_input"],
    ["a field too few", "1,2,3", "malformed_csv"],
    ["a field too many", "1,2,3,4,", "malformed_csv"],
    ["text after a closing quote", '"1"x,2,3,4', "malformed_csv"],
    ["a stray quote", '1,2",3,4', "invalid_input"],
    ["a quoted line end", '1,"2\n3",3,4', "invalid_input"],
    ["a line of spaces", "   ", "malformed_csv"],
    ["a line too long", `1,2,3,${"4".repeat(2000)}`, "row_too_large"],
  ])("%s fails alone", (_what, line, code) => {
    expect(readCsv(`${header}1,2,3,4\n${line}\n5,6,7,8\n`)).toEqual([[1, 2, 3, 4], code, [5, 6, 7, 8]]);
  });

  test("may have numbers with a sign, a bare dot or surrounding spaces, as written by spreadsheets", () => {
    expect(readCsv(`${header}+1,.5, 2. ,-0\n`)).toEqual([[1, 0.5, 2, -0]]);
  });

  test.each([
    ["lacks a feature", 'a,"b, c",e', ['column "d"é" is missing']],
    ["has one twice", 'a,"b, c","d""é",e,a', ['duplicate column "a"']],
    ["has another", 'a,"b, c","d""é",e,Label', ['column "Label" is unknown']],
    ["is no header", "1,2,3,4", ['"a"', '"b, c"', '"d"é"', '"e"', '"1"', '"2"', '"3"', '"4"']],
  ])("a header that %s is refused, each column named", (_what, text, named) => {
    try {
      readCsv(`${text}\n1,2,3,4\n`);
      expect.unreachable();
    } catch (fault) {
      expect(fault).toBeInstanceOf(ServiceError);
      const { code, complaints } = fault as ServiceError;
      expect(code).toBe("invalid_request");
      expect(complaints.map(({ detail }) => detail)).toEqual(named.map((text) => expect.stringContaining(text)));
    }
  });
});

describe("a chunk", () => {
  test("is decoded unchanged, compressed too", async () => {
    const r = random(9);
    for (let round = 0; round < 300; round++) {
      const lines = r.below(50);
      const faults: LineFault[] = [];
      for (let offset = r.below(4); offset < lines; offset += r.below(4)) {
        const count = Math.min(lines - offset, r.below(4));
        addFault(faults, offset, "some_code", r.pick(["", "é日本", "x".repeat(300), "日".repeat(300)]), count);
        offset += count;
      }
      const chunk: BulkChunk = {
        start: r.below(2 ** 32),
        lines,
        faults,
        origins: r.below(2) ? Uint32Array.from({ length: lines }, () => r.below(2 ** 32)) : null,
        form: r.pick(["table", "packs", "classes", "json"] as const),
        width: r.below(100),
        body: Buffer.from("body".repeat(r.below(5))),
      };
      const encoded = encodeChunk(chunk);
      expect(decodeChunk(encoded)).toEqual(chunk);
      expect(decodeChunk(await shrinkChunk(encoded))).toEqual(chunk);
      expect(faultlessOffsets(chunk)).toHaveLength(lines - failedLines(faults));
    }
    expect(() => decodeChunk(Buffer.alloc(40, 9))).toThrow(RangeError);
  });

  test("keeps parts apart", () => {
    const parts = [Buffer.from(""), Buffer.from("a"), Buffer.from("bc"), Buffer.from("")];
    expect(splitParts(joinParts(parts))).toEqual(parts);
    expect(splitParts(joinParts([]))).toEqual([]);
  });

  test("of only faulty lines is closed like any other, and its details are truncated", () => {
    const table = tableOf(["a"], 3);
    for (let i = 0; i < 7; i++) table.reader.builder.addFault(`code_${i}`, "d".repeat(10_000));
    expect(table.reader.builder).toMatchObject({ chunks: 0, lines: 7, faults: 7 });
    expect(table.lines()).toEqual(Array.from({ length: 7 }, (_, i) => `code_${i}`));
  });
});
