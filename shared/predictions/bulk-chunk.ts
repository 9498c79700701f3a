/** The fault of one line of a batch; `offset` counts lines from the chunk's first. */
export interface LineFault {
  offset: number;
  code: string;
  detail: string;
}

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

/**
 * Layout, little-endian: layout (u8, 1), form (u8), origins (u8, 0 or 1), 0 (u8), lines (u32), faults (u32), width
 * (u32), start (u32); then for each fault: offset (u32), length (u8) and code, length (u16) and detail in UTF-8; the
 * origins (u32 each); the body.
 */
export function encodeChunk({ body, faults, form, lines, origins, start, width }: UnencodedChunk): Buffer {
  const texts = faults.map(({ code, detail }) => [Buffer.from(code), Buffer.from(detail)] as const);
  const parts = body instanceof Uint8Array ? [body] : body;
  let size: number = chunkHead.bytes + (origins === null ? 0 : 4 * lines);
  for (const part of parts) size += part.length;
  for (const [code, detail] of texts) size += 7 + code.length + detail.length;
  const out = Buffer.allocUnsafe(size);
  out.writeUInt8(1, chunkHead.layout);
  out.writeUInt8(forms.indexOf(form), chunkHead.form);
  out.writeUInt8(origins === null ? 0 : 1, chunkHead.origins);
  out.writeUInt8(0, chunkHead.origins + 1);
  out.writeUInt32LE(lines, chunkHead.lines);
  out.writeUInt32LE(faults.length, chunkHead.faults);
  out.writeUInt32LE(width, chunkHead.width);
  let at = out.writeUInt32LE(start, chunkHead.start);
  for (const [i, [code, detail]] of texts.entries()) {
    at = out.writeUInt32LE((faults[i] as LineFault).offset, at);
    at = out.writeUInt8(code.length, at);
    at += code.copy(out, at);
    at = out.writeUInt16LE(detail.length, at);
    at += detail.copy(out, at);
  }
  if (origins !== null) for (const origin of origins) at = out.writeUInt32LE(origin, at);
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** The chunk, its body as a view of `buffer`. Throws a RangeError for a layout that it does not know. */
export function decodeChunk(buffer: Buffer): BulkChunk {
  const form = forms[buffer.readUInt8(chunkHead.form)];
  if (buffer.readUInt8(chunkHead.layout) !== 1 || form === undefined)
    throw new RangeError("chunk of an unknown layout");
  const lines = buffer.readUInt32LE(chunkHead.lines);
  const faults: LineFault[] = [];
  let at: number = chunkHead.bytes;
  for (let left = buffer.readUInt32LE(chunkHead.faults); left > 0; left--) {
    const codeEnd = at + 5 + buffer.readUInt8(at + 4);
    const end = codeEnd + 2 + buffer.readUInt16LE(codeEnd);
    faults.push({
      offset: buffer.readUInt32LE(at),
      code: buffer.toString("utf8", at + 5, codeEnd),
      detail: buffer.toString("utf8", codeEnd + 2, end),
    });
    at = end;
  }
  let origins: Uint32Array | null = null;
  if (buffer.readUInt8(chunkHead.origins) === 1) {
    origins = new Uint32Array(lines);
    for (let i = 0; i < lines; i++, at += 4) origins[i] = buffer.readUInt32LE(at);
  }
  const [width, start] = [buffer.readUInt32LE(chunkHead.width), buffer.readUInt32LE(chunkHead.start)];
  return { start, lines, faults, origins, form, width, body: buffer.subarray(at) };
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

/** The offsets of the lines without a fault, in order. */
export function faultlessOffsets({ faults, lines }: Pick<BulkChunk, "faults" | "lines">): number[] {
  const offsets: number[] = [];
  let next = 0;
  for (let offset = 0; offset < lines; offset++) {
    if (faults[next]?.offset === offset) next += 1;
    else offsets.push(offset);
  }
  return offsets;
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

/** Details are cut to this many characters, so that a million bad lines stay small. */
export const longestDetail = 300;
