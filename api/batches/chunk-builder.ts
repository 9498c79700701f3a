import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";
import { encodeChunk, joinParts } from "@millrace/shared/predictions/bulk-chunk.js";
import { addFault, type LineFault, longestDetail } from "@millrace/shared/predictions/line-faults.js";
import { packParts } from "@millrace/shared/tensors/tensor-pack.js";

/** A chunk as it is staged: its place in the batch, its lines, its bytes. */
export interface BuiltChunk {
  number: number;
  lines: number;
  bytes: Buffer;
}

/** Gathers the lines of a batch into chunks, each handed on as soon as it is full. */
export interface ChunkBuilder {
  /** Lines so far. */
  readonly lines: number;
  /** Lines so far that are no valid input. */
  readonly faults: number;
  readonly chunks: number;
  /** The next line is no valid input. */
  addFault(code: string, detail: string): void;
  /** The next line has the fault of the last one that had any. */
  repeatFault(): void;
  /** Hands on what there is. */
  end(): void;
}

/** A chunk with this many lines is full, although hardly any of them may be a valid input. */
const mostLines = 262_144;
/** A fault that is known in its chunk takes that much of it, a new one its text besides. */
const faultBytes = 4;
/** Texts of faults that are kept whatever was sent, in bytes; beyond it, one byte of text for each byte sent. */
const freeTextBytes = 1024;

const untold = "The row is not valid. The batch has too many different faults to keep the text of each.";

/** Settings of a builder. */
export interface ChunkLimits {
  /** Valid rows of a full chunk, as long as it has the least bytes. */
  rows: number;
  leastBytes: number;
  bytes: number;
  /** Bytes that were sent so far. */
  sentBytes(): number;
}

abstract class Builder implements ChunkBuilder {
  lines = 0;
  faults = 0;
  chunks = 0;
  readonly #limits: ChunkLimits;
  readonly #onChunk: (chunk: BuiltChunk) => void;
  #start = 0;
  #rows = 0;
  #faults: LineFault[] = [];
  #last = { code: "invalid_input", detail: untold };
  readonly #texts = new Set<string>();
  #textBytes = 0;
  #bytes = 0;

  constructor(limits: ChunkLimits, onChunk: (chunk: BuiltChunk) => void) {
    this.#limits = limits;
    this.#onChunk = onChunk;
  }

  addFault(code: string, detail: string): void {
    this.#last = { code, detail };
    const text = this.#keepText(code, detail.slice(0, longestDetail));
    addFault(this.#faults, this.lines - this.#start, code, text);
    this.faults += 1;
    this.#added(faultBytes);
  }

  repeatFault(): void {
    this.addFault(this.#last.code, this.#last.detail);
  }

  end(): void {
    const { lines } = this;
    const count = lines - this.#start;
    if (count === 0) return;
    const { body, form } = this.takeBody();
    const chunk = { start: this.#start, lines: count, faults: this.#faults, origins: null, form, width: 0, body };
    this.#onChunk({ number: this.chunks, lines: count, bytes: encodeChunk(chunk) });
    this.chunks += 1;
    this.#start = lines;
    this.#rows = 0;
    this.#faults = [];
    this.#texts.clear();
    this.#bytes = 0;
  }

  /** A row of so many bytes was added. */
  protected addedRow(bytes: number): void {
    this.#rows += 1;
    this.#added(bytes);
  }

  #added(bytes: number): void {
    this.lines += 1;
    this.#bytes += bytes;
    const { bytes: mostBytes, leastBytes, rows } = this.#limits;
    if (
      (this.#rows >= rows && this.#bytes >= leastBytes) ||
      this.#bytes >= mostBytes ||
      this.lines - this.#start >= mostLines
    )
      this.end();
  }

  /** The text itself, as long as the texts of faults take no more than what was sent; else one for all. */
  #keepText(code: string, detail: string): string {
    const key = `${code} ${detail}`;
    if (this.#texts.has(key)) return detail;
    const bytes = 2 * key.length;
    if (this.#textBytes + bytes > freeTextBytes + this.#limits.sentBytes()) return untold;
    this.#texts.add(key);
    this.#textBytes += bytes;
    this.#bytes += bytes;
    return detail;
  }

  protected abstract takeBody(): { form: "table" | "packs"; body: readonly Uint8Array[] };
}

/** For tabular models: rows of float32 numbers, which are written into `row` at `rowAt` and then added. */
export class Table extends Builder {
  readonly row: Float32Array;
  rowAt = 0;
  readonly #tensor: string;
  readonly #width: number;

  constructor(
    { rows, sentBytes, tensor, width }: { tensor: string; width: number } & Omit<ChunkLimits, "bytes" | "leastBytes">,
    onChunk: (chunk: BuiltChunk) => void,
  ) {
    super({ rows, leastBytes: 0, bytes: Number.POSITIVE_INFINITY, sentBytes }, onChunk);
    this.#tensor = tensor;
    this.#width = width;
    this.row = new Float32Array(rows * width);
  }

  addRow(): void {
    this.rowAt += this.#width;
    this.addedRow(0);
  }

  protected takeBody() {
    const rows = this.rowAt / this.#width;
    const bytes = new Uint8Array(this.row.buffer, 0, 4 * this.rowAt);
    this.rowAt = 0;
    if (rows === 0) return { form: "table" as const, body: [] };
    const shape = [rows, this.#width];
    return { form: "table" as const, body: packParts({ name: this.#tensor, dtype: "float32", shape, bytes }) };
  }
}

/** For other models: a tensor pack for each line. */
export class Packs extends Builder {
  #packs: Buffer[] = [];

  addPack(pack: Buffer): void {
    this.#packs.push(pack);
    this.addedRow(pack.length);
  }

  protected takeBody() {
    const body = joinParts(this.#packs);
    this.#packs = [];
    return { form: "packs" as const, body: [body] };
  }
}

/** A chunk is written, kept and read as one, so its outputs must not be many times what its inputs are. */
const outputBytes = 1024 * 1024;
/** A number in JSON, with what separates it from the next. */
const numberBytes = 12;

/** Most rows of a model in one chunk, so that their outputs stay small; at least 1. */
export const rowsOfOutputs = (manifest: Manifest, outputs: readonly TensorSpec[]): number =>
  Math.max(1, Math.floor(outputBytes / bytesOfRow(manifest, outputs)));

/** Size of one row's output, as far as the manifest and the ONNX file tell. */
function bytesOfRow({ output }: Manifest, outputs: readonly TensorSpec[]): number {
  switch (output.head) {
    case "classifier":
      return 2 + 4 * output.labels.length;
    case "multi_label":
    case "ensemble":
      return output.labels.reduce((sum, label) => sum + label.length + numberBytes, numberBytes);
    case "regressor":
    case "anomaly":
    case "raw":
      return bytesOfTensors(outputs);
  }
}

function bytesOfTensors(outputs: readonly TensorSpec[]): number {
  // What is open is not known here; but it is mostly the rows.
  const elements = outputs.map(({ shape }) =>
    shape.slice(1).reduce((size: number, length) => size * (typeof length === "number" && length > 0 ? length : 1), 1),
  );
  return elements.reduce((sum, count) => sum + numberBytes * count, numberBytes);
}
