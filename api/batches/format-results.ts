import { type BulkChunk, splitParts } from "@millrace/shared/bulk-chunk.js";

/** Writes the outputs of a chunk as text, line by line. */
export interface ResultFormat {
  contentType: string;
  /** What stands before the first line. */
  header: string;
  /** The texts of lines [from, lines) of a chunk whose first line has the index `start`, some at a time. */
  chunk(chunk: BulkChunk, start: number, from: number): Iterable<string[]>;
  /** The text of a line that was never run. */
  canceled(index: number): string;
}

/** Outputs that were formatted already, as long as they keep coming again; a decision tree has no more than its leaves. */
const memoEntries = 4096;
const memoTrial = 4096;

/** `{"index":…,"status":…,"output":…,"error":…}` on a line each, with `first_index` for lines of an earlier batch. */
export function ndjsonFormat(labels: readonly string[] | null, ending = "\n"): ResultFormat {
  const keys = (labels ?? []).map((label) => `${JSON.stringify(label)}:`);
  const quoted = (labels ?? []).map((label) => JSON.stringify(label));
  const outputOf = memoized((bytes, at, width) => {
    const best = bytes.readUInt16LE(at);
    let json = "";
    for (let c = 0; c < width; c++) json += `${c === 0 ? "" : ","}${keys[c]}${bytes.readFloatLE(at + 2 + 4 * c)}`;
    const confidence = bytes.readFloatLE(at + 2 + 4 * best);
    return `,"status":"succeeded","output":{"label":${quoted[best]},"confidence":${confidence},"probabilities":{${json}}},"error":null}${ending}`;
  });
  return {
    contentType: "application/x-ndjson; charset=utf-8",
    header: "",
    chunk: (chunk, start, from) =>
      format(chunk, from, {
        text: (json) => `,"status":"succeeded","output":${json},"error":null}${ending}`,
        classes: outputOf,
        fault: ({ code, detail }) =>
          `,"status":"failed","output":null,"error":${JSON.stringify({ code, detail })}}${ending}`,
        line: (offset, rest) => {
          const origin = chunk.origins === null ? "" : `,"first_index":${chunk.origins[offset]}`;
          return `{"index":${start + offset}${origin}${rest}`;
        },
      }),
    canceled: (index) => `{"index":${index},"status":"canceled","output":null,"error":null}${ending}`,
  };
}

/** `index,status,label,confidence,<one column per class>` for classifiers, `index,status,output` for other heads. */
export function csvFormat(labels: readonly string[] | null): ResultFormat {
  const width = labels?.length ?? 0;
  const empty = labels === null ? "," : ",".repeat(2 + width);
  const outputOf = memoized((bytes, at) => {
    const best = bytes.readUInt16LE(at);
    let text = `,succeeded,${csvField(labels?.[best] ?? "")},${bytes.readFloatLE(at + 2 + 4 * best)}`;
    for (let c = 0; c < width; c++) text += `,${bytes.readFloatLE(at + 2 + 4 * c)}`;
    return `${text}\r\n`;
  });
  const columns = labels === null ? ["output"] : ["label", "confidence", ...labels.map(csvField)];
  return {
    contentType: "text/csv; charset=utf-8; header=present",
    header: `${["index", "status", ...columns].join(",")}\r\n`,
    chunk: (chunk, start, from) =>
      format(chunk, from, {
        text: (json) => `,succeeded,${csvField(json)}\r\n`,
        classes: outputOf,
        fault: () => `,failed${empty}\r\n`,
        line: (offset, rest) => `${start + offset}${rest}`,
      }),
    canceled: (index) => `${index},canceled${empty}\r\n`,
  };
}

type OutputOf = (bytes: Buffer, at: number, width: number) => string;

interface LineParts {
  text(json: string): string;
  classes: OutputOf;
  fault(fault: BulkChunk["faults"][number]): string;
  line(offset: number, rest: string): string;
}

/** As many as a client that does not read may keep waiting as text; more are made when it has taken them. */
export const linesAtOnce = 512;

function* format(chunk: BulkChunk, from: number, parts: LineParts): Generator<string[]> {
  let lines: string[] = [];
  const { faults, form, width } = chunk;
  const body = Buffer.from(chunk.body.buffer, chunk.body.byteOffset, chunk.body.byteLength);
  const texts = form === "json" ? splitParts(body) : null;
  const record = 2 + 4 * width;
  let nextFault = 0;
  let row = 0;
  for (let offset = 0; offset < chunk.lines; offset++) {
    const fault = faults[nextFault];
    let rest: string | null = null;
    if (fault?.offset === offset) {
      nextFault += 1;
      if (offset >= from) rest = parts.fault(fault);
    } else {
      if (offset >= from) {
        rest = texts === null ? parts.classes(body, row * record, width) : parts.text(String(texts[row]));
      }
      row += 1;
    }
    if (rest === null) continue;
    if (lines.push(parts.line(offset, rest)) < linesAtOnce) continue;
    yield lines;
    lines = [];
  }
  if (lines.length > 0) yield lines;
}

/** Formats each different record once, unless nearly all of them differ. */
function memoized(outputOf: OutputOf): OutputOf {
  const memo = new Map<string, string>();
  let asked = 0;
  let useful = true;
  return (bytes, at, width) => {
    if (!useful) return outputOf(bytes, at, width);
    const key = bytes.toString("latin1", at, at + 2 + 4 * width);
    const known = memo.get(key);
    if (known !== undefined) return known;
    asked += 1;
    // As many different ones as that, and the memory of them costs more than it saves.
    if (asked > memoTrial) useful = false;
    const text = outputOf(bytes, at, width);
    if (memo.size < memoEntries) memo.set(key, text);
    return text;
  };
}

const csvField = (text: string): string => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
