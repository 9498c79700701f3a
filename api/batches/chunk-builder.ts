import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";
import { encodeChunk, joinParts, type LineFault, longestDetail } from "@millrace/shared/predictions/bulk-chunk.js";
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
  /** Hands on what there is. */
  end(): void;
}

/** A fault costs what its text takes; many of them fill a chunk too. */
const faultBytes = 150;

abstract class Builder implements ChunkBuilder {
  lines = 0;
  faults = 0;
  chunks = 0;
  readonly #limits: { rows: number; bytes: number };
  readonly #onChunk: (chunk: BuiltChunk) => void;
  #start = 0;
  #faults: LineFault[] = [];
  #bytes = 0;

  constructor(limits: { rows: number; bytes: number }, onChunk: (chunk: BuiltChunk) => void) {
    this.#limits = limits;
    this.#onChunk = onChunk;
  }

  addFault(code: string, detail: string): void {
    this.#faults.push({ offset: this.lines - this.#start, code, detail: detail.slice(0, longestDetail) });
    this.faults += 1;
    this.added(faultBytes);
  }

  end(): void {
    const { faults, lines } = this;
    const count = lines - this.#start;
    if (count === 0) return;
    const { body, form } = this.takeBody();
    const chunk = { start: this.#start, lines: count, faults: this.#faults, origins: null, form, width: 0, body };
    this.#onChunk({ number: this.chunks, lines: count, bytes: encodeChunk(chunk) });
    this.chunks += 1;
    this.faults = faults;
    this.#start = lines;
    this.#faults = [];
    this.#bytes = 0;
  }

  protected added(bytes: number): void {
    this.lines += 1;
    this.#bytes += bytes;
    if (this.lines - this.#start >= this.#limits.rows || this.#bytes >= this.#limits.bytes) this.end();
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
    { rows, tensor, width }: { tensor: string; width: number; rows: number },
    onChunk: (chunk: BuiltChunk) => void,
  ) {
    super({ rows, bytes: Number.POSITIVE_INFINITY }, onChunk);
    this.#tensor = tensor;
    this.#width = width;
    this.row = new Float32Array(rows * width);
  }

  addRow(): void {
    this.rowAt += this.#width;
    this.added(0);
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
    this.added(pack.length);
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
