import { csvRecords } from "@millrace/api/batches/csv-rows.js";
import { rowReader, type TableReader } from "@millrace/api/batches/read-rows.js";
import { RecordSplitter } from "@millrace/api/batches/split-records.js";
import { manifestSchema, type TabularManifest } from "@millrace/shared/models/manifest.js";
import { tabularPacker } from "@millrace/shared/packing/pack-tabular.js";
import { decodeChunk } from "@millrace/shared/predictions/bulk-chunk.js";
import { faultlessOffsets } from "@millrace/shared/predictions/line-faults.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { describe, expect, test } from "vitest";
import { cpuMs } from "../support/cpu-ms.js";
import { pieces } from "../support/http/pieces.js";
import { random } from "../support/random.js";

type SplitRecord = [record: string | null, line: number];

/** The records of a text that arrives in these pieces, with line numbers; null for a record that is too long. */
function split(cut: readonly Buffer[], longestRecordBytes: number): SplitRecord[] {
  const found: SplitRecord[] = [];
  const splitter = new RecordSplitter({
    longestRecordBytes,
    onRecord: (bytes, from, to, line) => found.push([bytes.toString("latin1", from, to), line]),
    onTooLong: (line) => found.push([null, line]),
  });
  for (const piece of cut) for (let all = splitter.push(piece); !all; ) all = splitter.goOn();
  for (let all = splitter.end(); !all; ) all = splitter.goOn();
  return found;
}

/**
 * The end of the record that begins at `from`, or the position at which its quoting turns out to be wrong; by the
 * grammar, field by field.
 */
function recordAt(text: string, from: number): { end: number } | { wrong: number } {
  for (let p = from; ; ) {
    if (text[p] !== '"') {
      const stop = /[,\n]/.exec(text.slice(p));
      const at = stop === null ? text.length : p + stop.index;
      if (text[at] !== ",") return { end: at };
      p = at + 1;
      continue;
    }
    let close = text.indexOf('"', p + 1);
    while (close >= 0 && text[close + 1] === '"') close = text.indexOf('"', close + 2);
    if (close < 0) return { wrong: text.length };
    const rest = text.slice(close + 1, close + 3);
    if (rest.startsWith(",")) p = close + 2;
    else if (rest === "" || rest.startsWith("\n")) return { end: close + 1 };
    else if (rest === "\r" || rest === "\r\n") return { end: close + 2 };
    else return { wrong: close + (rest[0] === "\r" ? 2 : 1) };
  }
}

/** The same as `split`, by a slow and simple reader of the whole text. */
function splitSlowly(text: string, longest: number): SplitRecord[] {
  const records: SplitRecord[] = [];
  const lineAt = (at: number) => text.slice(0, at).split("\n").length;
  const add = (from: number, to: number) => {
    const record = text.slice(from, to);
    records.push([record.length > longest ? null : record.replace(/\r$/, ""), lineAt(from)]);
  };
  for (let from = 0; from < text.length; ) {
    const found = recordAt(text, from);
    const firstEnd = text.indexOf("\n", from) < 0 ? text.length : text.indexOf("\n", from);
    const reach = "end" in found ? found.end : found.wrong;
    if (firstEnd >= reach) {
      add(from, firstEnd);
      from = firstEnd + 1;
    } else if ("end" in found && found.end - from <= longest) {
      add(from, found.end);
      from = found.end + 1;
    } else {
      const faultAt = from + Math.min(reach - from, longest);
      const resumeAt = text.lastIndexOf("\n", faultAt - 1) + 1;
      if (resumeAt <= from) {
        records.push([null, lineAt(from)]);
        from = firstEnd + 1;
      }
      while (from < resumeAt) {
        const end = text.indexOf("\n", from);
        add(from, end);
        from = end + 1;
      }
    }
  }
  return records;
}

describe("records of CSV", () => {
  test("are those of a simple reader, for any quotes and any pieces, 60,000 at random", () => {
    const r = random(21);
    const tokens = ['"', '"', ",", "\n", "\r\n", "\r", "a", "12", " ", '""', '","', '"\n', '\n"', "xxxxxxxx"];
    for (let round = 0; round < 60_000; round++) {
      const text = Array.from({ length: r.below(24) }, () => r.pick(tokens)).join("");
      const longest = r.pick([4, 9, 17, 1000]);
      const wanted = splitSlowly(text, longest);
      // One comparison by Vitest costs as much as ten of these rounds.
      const seen = split(pieces(Buffer.from(text, "latin1"), r), longest);
      if (JSON.stringify(seen) !== JSON.stringify(wanted))
        expect(seen, JSON.stringify([text, longest])).toEqual(wanted);
    }
  });

  test("may contain line ends within quotes", () => {
    const r = random(4);
    for (let round = 0; round < 1000; round++) {
      const field = () => r.pick(["1", '"a\nb"', '"a\r\n""b"', '""', '""""', '"x,y"', '"\n"', 'say "hi"', '5"']);
      const records = Array.from({ length: 1 + r.below(5) }, () =>
        Array.from({ length: 1 + r.below(4) }, field).join(","),
      );
      const text = records.join(r.pick(["\n", "\r\n"]));
      const found = split(pieces(Buffer.from(text), r), 1000).map(([record]) => record);
      expect(found, JSON.stringify(text)).toEqual(records);
    }
  });

  test("with unclosed quotes are read in time linear in the text", () => {
    const usedMs = (lines: number): number => {
      const text = Buffer.from(`u,v\n${'"3,4\n'.repeat(lines)}"x\n${"5,6\n".repeat(lines)}`);
      const cut = Array.from({ length: Math.ceil(text.length / 65_536) }, (_, i) =>
        text.subarray(i * 65_536, (i + 1) * 65_536),
      );
      return cpuMs(() => expect(split(cut, 1024 * 1024)).toHaveLength(2 * lines + 2));
    };
    usedMs(20_000);
    // Twenty times the text; quadratic time would be four hundred times.
    expect(usedMs(400_000)).toBeLessThan(100 * Math.max(5, usedMs(20_000)));
  });
});

/** The rows of a CSV: the numbers of each, or code and detail of its fault. */
function rowsOf(manifest: object, body: string | Buffer, longest = 1000): (number[] | string)[] {
  const parsed = manifestSchema.parse(manifest) as TabularManifest;
  const rows: (number[] | string)[] = [];
  const reader = rowReader(
    { manifest: parsed, pack: tabularPacker(parsed) },
    ({ bytes }) => {
      const chunk = decodeChunk(Buffer.from(bytes));
      const lines: (number[] | string)[] = [];
      for (const { code, count, detail, offset } of chunk.faults) {
        for (let line = offset; line < offset + count; line++) lines[line] = `${code}: ${detail}`;
      }
      const offsets = faultlessOffsets(chunk);
      const [tensor] = offsets.length === 0 ? [] : unpackTensors(Buffer.from(chunk.body));
      const numbers = new Float32Array(Uint8Array.from(tensor?.bytes ?? []).buffer);
      const width = numbers.length / offsets.length;
      for (const [row, offset] of offsets.entries())
        lines[offset] = [...numbers.subarray(row * width, (row + 1) * width)];
      rows.push(...lines);
    },
    { sentBytes: () => Number.POSITIVE_INFINITY },
  ) as TableReader;
  const splitter = new RecordSplitter({
    longestRecordBytes: longest,
    onRecord: csvRecords(reader),
    onTooLong: () => reader.builder.addFault("row_too_large", "too long"),
  });
  for (const piece of pieces(Buffer.from(body), random(body.length))) {
    for (let all = splitter.push(piece); !all; ) all = splitter.goOn();
  }
  for (let all = splitter.end(); !all; ) all = splitter.goOn();
  reader.builder.end();
  return rows;
}

const tabular = (...features: unknown[]) => ({ kind: "tabular", input: { tensor: "x", features } });
const category = (name: string, values: string[], rest: object = {}) => ({ name, type: "category", values, ...rest });

describe("an unclosed quote", () => {
  const fault = (line: number) => `malformed_csv: line ${line}: the quote that opens here is never closed`;

  test("fails its own line alone, with the line number", () => {
    const rows = rowsOf(tabular("u", "v"), `u,v\n1,2\n"3,4\n${"5,6\n".repeat(100)}`);
    expect(rows).toEqual([[1, 2], fault(3), ...Array.from({ length: 100 }, () => [5, 6])]);
  });

  test("is found even if a later quote seems to close it, and the lines in between are read again", () => {
    const manifest = tabular("u", category("c", ["x\ny", "k"]));
    expect(rowsOf(manifest, 'u,c\n1,"k\n2,k\n3,"x\ny"\n4,k\n')).toEqual([fault(2), [2, 1], [3, 0], [4, 1]]);
  });

  test("fails its own line alone if the row limit is reached before the end of the text", () => {
    const rows = rowsOf(tabular("u", "v"), `u,v\n"1,2\n${"5,6\n".repeat(100)}`, 50);
    expect(rows).toEqual([fault(2), ...Array.from({ length: 100 }, () => [5, 6])]);
  });

  test("does not slow down the refusal of a header of very many columns", () => {
    const header = `${"x,".repeat(200_000)}${"u,".repeat(200_000)}u`;
    expect(() => rowsOf(tabular("u", "v"), `${header}\n1,2\n`, 10_000_000)).toThrow(
      /The header has 400001 columns, the model 2/,
    );
  });

  test("in the header refuses the upload, with the line number", () => {
    expect(() => rowsOf(tabular("u", "v"), '\nu,"v\n1,2\n')).toThrow(
      expect.objectContaining({ code: "invalid_request", message: expect.stringMatching(/line 2: the quote/) }),
    );
  });
});

describe("names and values with surrounding spaces", () => {
  const spaced = tabular(" Destination Port", "Flow Duration", category("class", [" Private", "State-gov", "a", " a"]));

  test.each([
    ["unchanged", " Destination Port,Flow Duration,class\n1,2, Private\n", [[1, 2, 0]]],
    ["after commas", " Destination Port, Flow Duration, class\n1, 2, State-gov\n", [[1, 2, 1]]],
    ["within quotes", '" Destination Port","Flow Duration","class"\n"1"," 2 "," Private"\n', [[1, 2, 0]]],
    [
      "in two values that differ only in spaces",
      " Destination Port,Flow Duration,class\n1,2,a\n1,2, a\n",
      [
        [1, 2, 2],
        [1, 2, 3],
      ],
    ],
    ["at the end of lines", " Destination Port ,Flow Duration ,class \n1 ,2 ,a \n", null],
  ])("are read %s", (_what, text, rows) => {
    if (rows !== null) expect(rowsOf(spaced, text)).toEqual(rows);
    // Without the leading space, this is another name.
    else expect(() => rowsOf(spaced, text)).toThrow('column " Destination Port" is missing');
  });

  test("within quotes are exact", () => {
    const rows = rowsOf(spaced, '" Destination Port",Flow Duration,class\n1,2," State-gov"\n1,2,State-gov\n');
    expect(rows).toEqual([expect.stringMatching(/^invalid_input: /), [1, 2, 1]]);
    expect(() => rowsOf(spaced, '" Destination Port"," Flow Duration",class\n')).toThrow("is missing");
  });
});

describe("an empty line", () => {
  test.each([
    ["its default", tabular({ name: "v", default: -1 }), [[1], [-1], [3]]],
    ["a fault without one", tabular("v"), [[1], expect.stringMatching(/^invalid_input: .*missing/), [3]]],
    [
      "its default beside omitted features",
      tabular({ name: "v", default: -1 }, { name: "w", default: 7 }),
      [
        [1, 7],
        [-1, 7],
        [3, 7],
      ],
    ],
  ])("of a single column is a missing value: %s", (_what, manifest, rows) => {
    expect(rowsOf(manifest, "v\n1\n\n3\n")).toEqual(rows);
    expect(rowsOf(manifest, "\r\nv\r\n1\r\n\r\n3")).toEqual(rows);
  });

  test("of several columns is skipped", () => {
    expect(rowsOf(tabular("u", "v"), "\nu,v\n\n1,2\n\r\n\n3,4\n\n")).toEqual([
      [1, 2],
      [3, 4],
    ]);
  });
});

describe("invalid UTF-8", () => {
  test("in a row fails it alone, and the other rows are read", () => {
    const manifest = tabular("u", category("c", ["é", "\ufffd"]));
    const body = Buffer.concat([
      Buffer.from("u,c\n1,é\n2,"),
      Buffer.of(0xe9),
      Buffer.from('\n3,"'),
      Buffer.of(0xff, 0x0a),
      Buffer.from('"\n4,\ufffd\n'),
    ]);
    const fault = (line: number) => `malformed_csv: line ${line}: it is not UTF-8`;
    expect(rowsOf(manifest, body)).toEqual([[1, 0], fault(3), fault(4), [4, 1]]);
  });

  test("in the header refuses the upload", () => {
    try {
      rowsOf(tabular("\ufffd"), Buffer.concat([Buffer.of(0xe9), Buffer.from("\n1\n")]));
      expect.unreachable();
    } catch (fault) {
      expect(fault).toBeInstanceOf(ServiceError);
      expect(fault).toMatchObject({ code: "malformed_body", message: expect.stringContaining("not UTF-8") });
    }
  });
});
