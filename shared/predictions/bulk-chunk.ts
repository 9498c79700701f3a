import { promisify } from "node:util";
import { brotliCompress, brotliDecompressSync, constants } from "node:zlib";
import { decodeTables, encodeTables } from "./chunk-tables.js";
import { addFault, type LineFault } from "./line-faults.js";

/**
 * The form of a chunk's lines without a fault, in order. Inputs: `table`, one tensor pack with a row each; `packs`, a
 * tensor pack each. Outputs: `classes`, a class index (u16) and `width` probabilities (float32) each; `json`, JSON text
 * each. `packs` and `json` are length-prefixed (u32). With more classes than 16 bits count, `classIn` finds the class.
 */
export type ChunkForm = "table" | "packs" | "classes" | "json";

/** A run of consecutive lines of a batch, as inputs or as outputs. */
export interface BulkChunk {
  /** Index of its first line in the batch. */
  start: number;
  lines: number;
  /** In order of their offsets. */
  faults: readonly LineFault[];
  /** For a batch of another one's failed lines: each line's index in the first. */
  origins: Uint32Array | null;
  form: ChunkForm;
  /** Classes of `classes`; else 0. */
  width: number;
  body: Uint8Array;
}

/** A chunk whose body may still be in parts, so that they are copied once. */
export interface UnencodedChunk extends Omit<BulkChunk, "body"> {
  body: Uint8Array | readonly Uint8Array[];
}

const forms = ["table", "packs", "classes", "json"] as const;

/** Where the numbers of a chunk's head begin, in bytes, and the length of the head. Lua reads the lines, too. */
export const chunkHead = {
  layout: 0,
  form: 1,
  origins: 2,
  lines: 4,
  faults: 8,
  width: 12,
  start: 16,
  bytes: 20,
} as const;

/** A chunk without faults and origins has the layout that earlier releases read, too. */
const layouts = { plain: 1, tables: 2 } as const;
/** Added to the layout of a chunk whose parts after the head are compressed. */
const shrunk = 16;

/**
 * Layout, little-endian: layout (u8), form (u8), origins (u8, 0 or 1), 0 (u8), lines (u32), ranges of faults (u32),
 * width (u32), start (u32); with layout 2 the tables of `chunk-tables.ts`; the body. Layout 1 with faults, of earlier
 * releases, has instead for each faulty line: offset (u32), length (u8) and code, length (u16) and detail in UTF-8;
 * then the origins (u32 each). With 16 more, what follows the head is compressed with Brotli.
 */
export function encodeChunk({ body, faults, form, lines, origins, start, width }: UnencodedChunk): Buffer {
  const parts = body instanceof Uint8Array ? [body] : body;
  const hasTables = faults.length > 0 || origins !== null;
  const tables = hasTables ? encodeTables(faults, origins) : Buffer.alloc(0);
  let size: number = chunkHead.bytes + tables.length;
  for (const part of parts) size += part.length;
  const out = Buffer.allocUnsafe(size);
  out.writeUInt8(hasTables ? layouts.tables : layouts.plain, chunkHead.layout);
  out.writeUInt8(forms.indexOf(form), chunkHead.form);
  out.writeUInt8(origins === null ? 0 : 1, chunkHead.origins);
  out.writeUInt8(0, chunkHead.origins + 1);
  out.writeUInt32LE(lines, chunkHead.lines);
  out.writeUInt32LE(faults.length, chunkHead.faults);
  out.writeUInt32LE(width, chunkHead.width);
  out.writeUInt32LE(start, chunkHead.start);
  let at = chunkHead.bytes + tables.copy(out, chunkHead.bytes);
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const compress = promisify(brotliCompress);
/** Fast, and over the whole chunk, because its rows may repeat at any distance. */
const compression = {
  [constants.BROTLI_PARAM_QUALITY]: 3,
  [constants.BROTLI_PARAM_LGWIN]: 22,
};

/** The encoded chunk compressed, for rows that are mostly alike; as it is where that saves nothing. */
export async function shrinkChunk(chunk: Buffer): Promise<Buffer> {
  if (isShrunk(chunk)) return chunk;
  const rest = await compress(chunk.subarray(chunkHead.bytes), { params: compression });
  if (chunkHead.bytes + rest.length >= chunk.length) return chunk;
  const head = Buffer.from(chunk.subarray(0, chunkHead.bytes));
  head.writeUInt8(chunk.readUInt8(chunkHead.layout) + shrunk, chunkHead.layout);
  return Buffer.concat([head, rest]);
}

/** Whether an encoded chunk is compressed. */
export const isShrunk = (chunk: Buffer): boolean => chunk.readUInt8(chunkHead.layout) > shrunk;

/** The chunk, its body as a view of `buffer`. Throws a RangeError for a layout that it does not know. */
export function decodeChunk(buffer: Buffer): BulkChunk {
  const form = forms[buffer.readUInt8(chunkHead.form)];
  const compressed = isShrunk(buffer);
  const layout = buffer.readUInt8(chunkHead.layout) - (compressed ? shrunk : 0);
  if ((layout !== layouts.plain && layout !== layouts.tables) || form === undefined)
    throw new RangeError("chunk of an unknown layout");
  const lines = buffer.readUInt32LE(chunkHead.lines);
  const [width, start] = [buffer.readUInt32LE(chunkHead.width), buffer.readUInt32LE(chunkHead.start)];
  const counts = {
    ranges: buffer.readUInt32LE(chunkHead.faults),
    lines,
    hasOrigins: buffer.readUInt8(chunkHead.origins) === 1,
  };
  const rest = compressed ? brotliDecompressSync(buffer.subarray(chunkHead.bytes)) : buffer.subarray(chunkHead.bytes);
  const { end, faults, origins } = (layout === layouts.tables ? decodeTables : decodeLines)(rest, 0, counts);
  return { start, lines, faults, origins, form, width, body: rest.subarray(end) };
}

/** The faults and origins of a chunk of an earlier release. */
function decodeLines(
  bytes: Buffer,
  from: number,
  { hasOrigins, lines, ranges }: Parameters<typeof decodeTables>[2],
): ReturnType<typeof decodeTables> {
  const faults: LineFault[] = [];
  let at = from;
  for (let left = ranges; left > 0; left--) {
    const codeEnd = at + 5 + bytes.readUInt8(at + 4);
    const end = codeEnd + 2 + bytes.readUInt16LE(codeEnd);
    const code = bytes.toString("utf8", at + 5, codeEnd);
    addFault(faults, bytes.readUInt32LE(at), code, bytes.toString("utf8", codeEnd + 2, end));
    at = end;
  }
  if (!hasOrigins) return { faults, origins: null, end: at };
  const origins = new Uint32Array(lines);
  for (let i = 0; i < lines; i++, at += 4) origins[i] = bytes.readUInt32LE(at);
  return { faults, origins, end: at };
}

/** Length-prefixed parts, one after the other. */
export function joinParts(parts: readonly Uint8Array[]): Buffer {
  const out = Buffer.allocUnsafe(parts.reduce((size, part) => size + 4 + part.length, 0));
  let at = 0;
  for (const part of parts) {
    at = out.writeUInt32LE(part.length, at);
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** The parts that `joinParts` joined, as views. */
export function splitParts(joined: Uint8Array): Buffer[] {
  const buffer = Buffer.from(joined.buffer, joined.byteOffset, joined.byteLength);
  const parts: Buffer[] = [];
  for (let at = 0; at < buffer.length; ) {
    const end = at + 4 + buffer.readUInt32LE(at);
    parts.push(buffer.subarray(at + 4, end));
    at = end;
  }
  return parts;
}

const mostCountedClasses = 65_536;

/** The class of the record at `at`: its stored index, or that of the largest probability. */
export function classIn(bytes: Buffer, at: number, width: number): number {
  if (width <= mostCountedClasses) return bytes.readUInt16LE(at);
  let best = 0;
  let largest = Number.NEGATIVE_INFINITY;
  for (let c = 0; c < width; c++) {
    const probability = bytes.readFloatLE(at + 2 + 4 * c);
    if (probability > largest) {
      largest = probability;
      best = c;
    }
  }
  return best;
}
