import {
  type BulkChunk,
  decodeChunk,
  joinParts,
  splitParts,
  type UnencodedChunk,
} from "@millrace/shared/predictions/bulk-chunk.js";
import {
  addFault,
  failedLines,
  faultlessOffsets,
  type LineFault,
  longestDetail,
  mergeFaults,
} from "@millrace/shared/predictions/line-faults.js";
import { type PackedTensor, packTensors, unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import type { Outcome } from "../runs/work.js";

/** Outputs of consecutive rows of a chunk. */
export interface ChunkPart {
  lines: number;
  form: "classes" | "json";
  width: number;
  bodies: Uint8Array[];
  faults: LineFault[];
}

/** A part in which every row failed alike. */
export const allFailed = (count: number, code: string, detail: string): ChunkPart => ({
  lines: count,
  form: "json",
  width: 0,
  bodies: [],
  faults: count === 0 ? [] : [{ offset: 0, count, code, detail }],
});

/** The outputs of rows that were run one by one. */
export function fromItems(items: Extract<Outcome, { kind: "done in bulk" }>["items"]): ChunkPart {
  const faults: LineFault[] = [];
  const texts: Buffer[] = [];
  items.forEach((item, offset) => {
    if (item.ok) texts.push(Buffer.from(item.text));
    else {
      const code = item.refused ? "invalid_input" : "inference_failed";
      addFault(faults, offset, code, item.text.slice(0, longestDetail));
    }
  });
  return { lines: items.length, form: "json", width: 0, bodies: [joinParts(texts)], faults };
}

/** The outputs of rows that were run as a table. */
export function fromTable(table: Buffer): ChunkPart {
  const { body, faults, form, lines, width } = decodeChunk(table);
  return { lines, form: form as ChunkPart["form"], width, bodies: [body], faults: [...faults] };
}

/** Two parts, one after the other. */
export function joinTwo(a: ChunkPart, b: ChunkPart): ChunkPart {
  // A part without outputs has no form.
  const { form, width } = a.lines > failedLines(a.faults) ? a : b;
  const faults = [...a.faults];
  for (const { code, count, detail, offset } of b.faults) addFault(faults, offset + a.lines, code, detail, count);
  return { lines: a.lines + b.lines, form, width, bodies: [...a.bodies, ...b.bodies], faults };
}

/** The outputs of all lines of a chunk, and the inputs of its failed lines; null where there are none. */
export function mergeLines(
  inputs: BulkChunk,
  part: ChunkPart,
): { outputs: UnencodedChunk; failedInputs: BulkChunk | null } {
  const ranFaults = faultsOfLines(inputs, part.faults);
  const faults = mergeFaults(inputs.faults, ranFaults);
  const { lines, origins, start } = inputs;
  const { form, width } = part;
  const outputs = { start, lines, faults, origins, form, width, body: part.bodies };
  return { outputs, failedInputs: faults.length === 0 ? null : failedOf(inputs, faults, part.faults) };
}

/** The faults of the rows that ran, by the lines that they are. */
function faultsOfLines(inputs: BulkChunk, ranFaults: readonly LineFault[]): LineFault[] {
  if (ranFaults.length === 0) return [];
  const offsets = faultlessOffsets(inputs);
  const faults: LineFault[] = [];
  for (const { code, count, detail, offset } of ranFaults) {
    for (let row = offset; row < offset + count; row++) addFault(faults, offsets[row] as number, code, detail);
  }
  return faults;
}

/** The failed lines as a chunk of another batch; invalid lines keep their faults. */
function failedOf(inputs: BulkChunk, faults: readonly LineFault[], ranFaults: readonly LineFault[]): BulkChunk {
  const lines = failedLines(faults);
  const origins = new Uint32Array(lines);
  const kept: LineFault[] = [];
  let line = 0;
  let next = 0;
  for (const { count, offset } of faults) {
    for (let at = offset; at < offset + count; at++, line++) {
      origins[line] = inputs.origins?.[at] ?? inputs.start + at;
      let invalid = inputs.faults[next];
      while (invalid !== undefined && invalid.offset + invalid.count <= at) invalid = inputs.faults[++next];
      if (invalid !== undefined && invalid.offset <= at) addFault(kept, line, invalid.code, invalid.detail);
    }
  }
  const rows = ranFaults.flatMap(({ count, offset }) => Array.from({ length: count }, (_, i) => offset + i));
  return { start: 0, lines, faults: kept, origins, form: inputs.form, width: 0, body: bodyOf(inputs, rows) };
}

function bodyOf({ body, form }: BulkChunk, rows: readonly number[]): Buffer {
  if (rows.length === 0) return Buffer.alloc(0);
  if (form === "packs") {
    const packs = splitParts(body);
    return joinParts(rows.map((row) => packs[row] as Buffer));
  }
  const whole = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  const [{ bytes, dtype, name, shape }] = unpackTensors(whole) as [PackedTensor];
  const stride = bytes.length / (shape[0] as number);
  const picked = Buffer.concat(rows.map((row) => bytes.subarray(row * stride, (row + 1) * stride)));
  return packTensors([{ name, dtype, shape: [rows.length, ...shape.slice(1)], bytes: picked }]);
}
