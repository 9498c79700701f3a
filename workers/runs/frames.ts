import type { Readable } from "node:stream";

/**
 * The frames between a worker and its slots over a pipe: length of the rest (u32), kind (u8) and body, little-endian.
 * Tensors travel as their bytes.
 */
export const frameKinds = {
  load: 1,
  unload: 2,
  run: 3,
  runTable: 5,
  runTableLaid: 6,
  loaded: 11,
  done: 12,
  nextRun: 13,
  doneTable: 15,
} as const;

export interface Frame {
  kind: number;
  body: Buffer;
}

const headBytes = 5;
const uncopiedBytes = 32 * 1024;

/** One frame in one buffer. */
export const encodeFrame = (kind: number, body: Uint8Array): Buffer =>
  Buffer.concat([frameHead(kind, body.length), body]);

/** The head of a frame with a body of so many bytes. */
export function frameHead(kind: number, bodyLength: number): Buffer {
  const head = Buffer.allocUnsafe(headBytes);
  head.writeUInt32LE(bodyLength + 1, 0);
  head.writeUInt8(kind, 4);
  return head;
}

export const encodeJsonFrame = (kind: number, value: unknown): Buffer =>
  encodeFrame(kind, Buffer.from(JSON.stringify(value)));

/** Calls `onFrame` for each frame of a stream, in order. */
export function readFrames(stream: Readable, onFrame: (frame: Frame) => void): void {
  let chunks: Buffer[] = [];
  let have = 0;
  let need = headBytes;
  stream.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    have += chunk.length;
    if (have < need) return;
    let buffer = chunks.length === 1 ? chunk : Buffer.concat(chunks, have);
    for (;;) {
      need = buffer.length < 4 ? headBytes : 4 + buffer.readUInt32LE(0);
      if (buffer.length < need) break;
      onFrame({ kind: buffer.readUInt8(4), body: buffer.subarray(headBytes, need) });
      buffer = buffer.subarray(need);
    }
    chunks = buffer.length === 0 ? [] : [buffer];
    have = buffer.length;
  });
}

/** A run as a slot receives it: packs of one loaded version. */
export interface RunRequest {
  runId: number;
  modelKey: number;
  /** Whether inputs may share a run of the model. */
  joins: boolean;
  packs: readonly Buffer[];
}

const runHeadBytes = 13;

/**
 * Layout: run id (u32), model key (u32), joins (u8), count (u32), then length (u32) and bytes of each pack. Large packs
 * are parts of their own, so that they are not copied.
 */
export function encodeRun({ joins, modelKey, packs, runId }: RunRequest, kind: number = frameKinds.run): Buffer[] {
  let size = runHeadBytes;
  let copied = headBytes + size;
  for (const pack of packs) {
    size += 4 + pack.length;
    copied += 4 + (pack.length < uncopiedBytes ? pack.length : 0);
  }
  const bytes = Buffer.allocUnsafe(copied);
  const parts: Buffer[] = [];
  let at = bytes.writeUInt32LE(size + 1, 0);
  at = bytes.writeUInt8(kind, at);
  at = bytes.writeUInt32LE(runId, at);
  at = bytes.writeUInt32LE(modelKey, at);
  at = bytes.writeUInt8(joins ? 1 : 0, at);
  at = bytes.writeUInt32LE(packs.length, at);
  let begun = 0;
  for (const pack of packs) {
    at = bytes.writeUInt32LE(pack.length, at);
    if (pack.length < uncopiedBytes) at += pack.copy(bytes, at);
    else {
      parts.push(bytes.subarray(begun, at), pack);
      begun = at;
    }
  }
  if (begun < at) parts.push(bytes.subarray(begun, at));
  return parts;
}

/** A table in the shared file beside the pipe (see `shared-file.ts`). */
export interface LaidRun extends Omit<RunRequest, "packs"> {
  length: number;
  headLength: number;
}

/** A run of a table: run id, model key, its length, length of its head (u32 each), joins (u8). */
export function encodeLaidRun(run: LaidRun): Buffer {
  const body = Buffer.alloc(17);
  body.writeUInt32LE(run.runId, 0);
  body.writeUInt32LE(run.modelKey, 4);
  body.writeUInt32LE(run.length, 8);
  body.writeUInt32LE(run.headLength, 12);
  body.writeUInt8(run.joins ? 1 : 0, 16);
  return encodeFrame(frameKinds.runTableLaid, body);
}

export const decodeLaidRun = (body: Buffer): LaidRun => ({
  runId: body.readUInt32LE(0),
  modelKey: body.readUInt32LE(4),
  joins: body.readUInt8(16) === 1,
  length: body.readUInt32LE(8),
  headLength: body.readUInt32LE(12),
});

export function decodeRun(body: Buffer): RunRequest {
  const packs: Buffer[] = [];
  let at = runHeadBytes;
  for (let left = body.readUInt32LE(9); left > 0; left--) {
    const end = at + 4 + body.readUInt32LE(at);
    packs.push(body.subarray(at + 4, end));
    at = end;
  }
  return { runId: body.readUInt32LE(0), modelKey: body.readUInt32LE(4), joins: body.readUInt8(8) === 1, packs };
}

/** The outcome of one input of a run. */
export interface RunItem {
  ok: boolean;
  /** Where not ok: the input could not be prepared; the model did not fail. */
  refused?: boolean;
  /** Output JSON, empty where the pack is large; where not ok, a sentence that is safe to show a client. */
  text: string;
  /** The output as a tensor pack, where the input asks for that. */
  pack?: Buffer | undefined;
  /** Probability of a classifier's label; NaN for other heads. */
  confidence: number;
  /** Milliseconds and rows of its ONNX run. */
  inferenceMs: number;
  batchRows: number;
}

const itemHeadBytes = 21;

/**
 * Layout: run id (u32), the misfit's length (u16) and text, count (u32), then per item 1 ok, 2 refused (u8),
 * confidence, ms (f32), rows, lengths of text and pack (u32), text, pack. `misfit`: the reason why the version's inputs
 * share no run.
 */
export function encodeDone(runId: number, misfit: string | null, items: readonly RunItem[]): Buffer {
  const texts = items.map((item) => Buffer.from(item.text));
  const why = encodeMisfit(misfit);
  let size = 8 + why.length + itemHeadBytes * items.length;
  items.forEach((item, i) => {
    size += (texts[i] as Buffer).length + (item.pack?.length ?? 0);
  });
  const body = Buffer.allocUnsafe(headBytes + size);
  let at = body.writeUInt32LE(size + 1, 0);
  at = body.writeUInt8(frameKinds.done, at);
  at = body.writeUInt32LE(runId, at);
  at += why.copy(body, at);
  at = body.writeUInt32LE(items.length, at);
  items.forEach((item, i) => {
    at = body.writeUInt8(item.ok ? 1 : item.refused ? 2 : 0, at);
    at = body.writeFloatLE(item.confidence, at);
    at = body.writeFloatLE(item.inferenceMs, at);
    at = body.writeUInt32LE(item.batchRows, at);
    at = body.writeUInt32LE((texts[i] as Buffer).length, at);
    at = body.writeUInt32LE(item.pack?.length ?? 0, at);
    at += (texts[i] as Buffer).copy(body, at);
    at += item.pack?.copy(body, at) ?? 0;
  });
  return body;
}

export function decodeDone(body: Buffer): { runId: number; misfit: string | null; items: RunItem[] } {
  const items: RunItem[] = [];
  const { end: itemsAt, misfit } = decodeMisfit(body, 4);
  let at = itemsAt + 4;
  for (let left = body.readUInt32LE(itemsAt); left > 0; left--) {
    const textEnd = at + itemHeadBytes + body.readUInt32LE(at + 13);
    const end = textEnd + body.readUInt32LE(at + 17);
    const item: RunItem = {
      ok: body.readUInt8(at) === 1,
      ...(body.readUInt8(at) === 2 && { refused: true }),
      confidence: body.readFloatLE(at + 1),
      inferenceMs: body.readFloatLE(at + 5),
      batchRows: body.readUInt32LE(at + 9),
      text: body.toString("utf8", at + itemHeadBytes, textEnd),
    };
    if (end > textEnd) item.pack = body.subarray(textEnd, end);
    items.push(item);
    at = end;
  }
  return { runId: body.readUInt32LE(0), misfit, items };
}

/** The misfit as length (u16) and text; a length of 0 stands for none. */
export function encodeMisfit(misfit: string | null): Buffer {
  if (misfit === null) return noMisfit;
  const text = Buffer.from(misfit.slice(0, 1000));
  const length = Buffer.allocUnsafe(2);
  length.writeUInt16LE(text.length, 0);
  return Buffer.concat([length, text]);
}

const noMisfit = Buffer.alloc(2);

export function decodeMisfit(body: Buffer, at: number): { misfit: string | null; end: number } {
  const end = at + 2 + body.readUInt16LE(at);
  return { misfit: end === at + 2 ? null : body.toString("utf8", at + 2, end), end };
}
