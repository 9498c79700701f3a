import { type BulkChunk, classIn, splitParts } from "@millrace/shared/predictions/bulk-chunk.js";
import type { LineFault } from "@millrace/shared/predictions/line-faults.js";
import { oneLine } from "@millrace/shared/service/one-line.js";

/** Some lines of results as text, or a part of a long one. */
export interface ResultPiece {
  text: string;
  /** Lines that end in it. */
  lines: number;
  /** Whether a line ends where it does. */
  whole: boolean;
}

/** Writes the outputs of a chunk as text, line by line. */
export interface ResultFormat {
  contentType: string;
  /** Text before the first line. */
  header: string;
  /**
   * The text of lines [from, to) of a chunk whose first line has the index `start`, in pieces of about 64 KiB at the
   * most.
   */
  chunk(chunk: BulkChunk, start: number, from: number, to: number): Iterable<ResultPiece>;
  /** The text of a line that was never run. */
  canceled(index: number): string;
}

/** As many lines as are made at a time; more are made when the client has taken them. */
export const linesAtOnce = 512;
const pieceCharacters = 48 * 1024;
/** An output of more classes, or of more bytes of JSON, is written in parts. */
const mostClassesAtOnce = 1024;
const mostJsonBytesAtOnce = 32 * 1024;

/** `{"index":…,"status":…,"output":…,"error":…}` on a line each, with `first_index` for lines of an earlier batch. */
export function ndjsonFormat(labels: readonly string[] | null, ending = "\n"): ResultFormat {
  const quoted = (labels ?? []).map((label) => oneLine(JSON.stringify(label)));
  const before = ',"status":"succeeded","output":';
  const after = `,"error":null}${ending}`;
  const probability: OutputPart = (bytes, at, c) =>
    `${c === 0 ? "" : ","}${quoted[c]}:${bytes.readFloatLE(at + 2 + 4 * c)}`;
  const classes: ClassesWriter = {
    head(bytes, at) {
      const best = classIn(bytes, at, quoted.length);
      return `${before}{"label":${quoted[best]},"confidence":${bytes.readFloatLE(at + 2 + 4 * best)},"probabilities":{`;
    },
    part: probability,
    tail: `}}${after}`,
  };
  const parts: LineParts = {
    json: { before, inOneLine: oneLine, after },
    classes,
    fault: ({ code, detail }) =>
      `,"status":"failed","output":null,"error":${oneLine(JSON.stringify({ code, detail }))}}${ending}`,
    begin: (index, origin) => (origin === null ? `{"index":${index}` : `{"index":${index},"first_index":${origin}`),
  };
  return {
    contentType: "application/x-ndjson; charset=utf-8",
    header: "",
    chunk: formatWith(parts),
    canceled: (index) => `{"index":${index},"status":"canceled","output":null,"error":null}${ending}`,
  };
}

/** `index,status,label,confidence,<one column per class>` for classifiers, `index,status,output` for other heads. */
export function csvFormat(labels: readonly string[] | null): ResultFormat {
  const width = labels?.length ?? 0;
  const fields = (labels ?? []).map(csvField);
  const empty = labels === null ? "," : ",".repeat(2 + width);
  const parts: LineParts = {
    json: { before: ',succeeded,"', inOneLine: (json) => oneLine(json).replaceAll('"', '""'), after: '"\r\n' },
    classes: {
      head(bytes, at) {
        const best = classIn(bytes, at, width);
        return `,succeeded,${fields[best] ?? ""},${bytes.readFloatLE(at + 2 + 4 * best)}`;
      },
      part: (bytes, at, c) => `,${bytes.readFloatLE(at + 2 + 4 * c)}`,
      tail: "\r\n",
    },
    fault: () => `,failed${empty}\r\n`,
    begin: String,
  };
  const columns = labels === null ? ["output"] : ["label", "confidence", ...fields];
  return {
    contentType: "text/csv; charset=utf-8; header=present",
    header: `${["index", "status", ...columns].join(",")}\r\n`,
    chunk: formatWith(parts),
    canceled: (index) => `${index},canceled${empty}\r\n`,
  };
}

type OutputPart = (bytes: Buffer, at: number, place: number) => string;

/** Writes the output of a classifier: what stands before and after the classes, and each class. */
interface ClassesWriter {
  head(bytes: Buffer, at: number): string;
  part: OutputPart;
  tail: string;
}

interface LineParts {
  /** The index of a line, and the one that it had in an earlier batch. */
  begin(index: number, origin: number | null): string;
  json: { before: string; inOneLine(json: string): string; after: string };
  classes: ClassesWriter;
  fault(fault: LineFault): string;
}

function formatWith(parts: LineParts): ResultFormat["chunk"] {
  const { after, before, inOneLine } = parts.json;
  const shortOutput = memoized(({ bytes, at, width }) => {
    const { head, part, tail } = parts.classes;
    let text = head(bytes, at);
    for (let c = 0; c < width; c++) text += part(bytes, at, c);
    return text + tail;
  });
  return function* (chunk, start, from, to) {
    const { faults, form, origins, width } = chunk;
    const body = Buffer.from(chunk.body.buffer, chunk.body.byteOffset, chunk.body.byteLength);
    const texts = form === "json" ? splitParts(body) : null;
    const record = 2 + 4 * width;
    let text = "";
    let lines = 0;
    let nextFault = 0;
    let row = 0;
    for (let offset = 0; offset < Math.min(to, chunk.lines); offset++) {
      let fault = faults[nextFault];
      if (fault !== undefined && fault.offset + fault.count <= offset) fault = faults[++nextFault];
      if (fault !== undefined && fault.offset > offset) fault = undefined;
      const own = row;
      if (fault === undefined) row += 1;
      if (offset < from) continue;
      text += parts.begin(start + offset, origins === null ? null : (origins[offset] as number));
      let output: Iterable<string> | null = null;
      if (fault !== undefined) text += parts.fault(fault);
      else if (texts === null) {
        const at = own * record;
        if (width <= mostClassesAtOnce) text += shortOutput({ bytes: body, at, width });
        else output = longClasses(body, at, width);
      } else {
        const json = texts[own] as Buffer;
        if (json.length <= mostJsonBytesAtOnce) text += before + inOneLine(json.toString()) + after;
        else output = longJson(json);
      }
      let isLong = false;
      for (const piece of output ?? []) {
        text += piece;
        if (text.length < pieceCharacters) continue;
        yield { text, lines, whole: false };
        text = "";
        lines = 0;
        isLong = true;
      }
      lines += 1;
      if (lines < linesAtOnce && text.length < pieceCharacters && !isLong) continue;
      yield { text, lines, whole: true };
      text = "";
      lines = 0;
    }
    if (lines > 0) yield { text, lines, whole: true };
  };

  function* longClasses(bytes: Buffer, at: number, width: number): Generator<string> {
    const { head, part, tail } = parts.classes;
    yield head(bytes, at);
    for (let c = 0; c < width; ) {
      let text = "";
      for (const end = Math.min(width, c + mostClassesAtOnce); c < end; c++) text += part(bytes, at, c);
      yield text;
    }
    yield tail;
  }

  function* longJson(json: Buffer): Generator<string> {
    yield before;
    for (const piece of utf8Pieces(json, mostJsonBytesAtOnce)) yield inOneLine(piece);
    yield after;
  }
}

/**
 * Outputs that were formatted already, as long as they keep coming again; a decision tree has no more than its leaves.
 */
const memoEntries = 4096;
const memoCharacters = 4 * 1024 * 1024;
const memoTrial = 4096;

interface ShortOutput {
  bytes: Buffer;
  at: number;
  width: number;
}

/** Formats each different record once, unless nearly all of them differ or they are large. */
function memoized(outputOf: (output: ShortOutput) => string): (output: ShortOutput) => string {
  const memo = new Map<string, string>();
  let characters = 0;
  let asked = 0;
  let useful = true;
  return (output) => {
    if (!useful) return outputOf(output);
    const { at, bytes, width } = output;
    const key = bytes.toString("latin1", at, at + 2 + 4 * width);
    const known = memo.get(key);
    if (known !== undefined) return known;
    asked += 1;
    // As many different ones as that, and the memory of them costs more than it saves.
    if (asked > memoTrial) useful = false;
    const text = outputOf(output);
    if (memo.size < memoEntries && characters < memoCharacters) {
      memo.set(key, text);
      characters += text.length + key.length;
    }
    return text;
  };
}

/** Quoted also where it has what only some readers take for the end of a line. */
const csvField = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are such characters
  /[",\r\n\v\f\x1c-\x1e\u0085\u2028\u2029]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

/** Text that is UTF-8, in pieces of so many bytes at the most, none of which ends within a character. */
export function* utf8Pieces(bytes: Buffer, pieceBytes: number): Generator<string> {
  for (let at = 0; at < bytes.length; ) {
    let end = Math.min(bytes.length, at + pieceBytes);
    // All bytes of a character but its first are of the form 10xxxxxx.
    while (end < bytes.length && ((bytes[end] as number) & 0xc0) === 0x80) end -= 1;
    yield bytes.toString("utf8", at, end);
    at = end;
  }
}
