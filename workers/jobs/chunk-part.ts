import {
  type BulkChunk,
  decodeChunk,
  faultlessOffsets,
  joinParts,
  type LineFault,
  longestDetail,
  splitParts,
  type UnencodedChunk,
} from "@millrace/shared/predictions/bulk-chunk.js";
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
  faults: Array.from({ length: count }, (_, offset) => ({ offset, code, detail })),
});

/** The outputs of rows that were run one by one. */
export function fromItems(items: Extract<Outcome, { kind: "done in bulk" }>["items"]): ChunkPart {
  const faults: LineFault[] = [];
  const texts: Buffer[] = [];
  items.forEach((item, offset) => {
    if (item.ok) texts.push(Buffer.from(item.text));
    else {
      const code = item.refused ? "invalid_input" : "inference_failed";
      faults.push({ offset, code, detail: item.text.slice(0, longestDetail) });
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
  const { form, width } = a.lines > a.faults.length ? a : b;
  const faults = [...a.faults, ...b.faults.map((fault) => ({ ...fault, offset: fault.offset + a.lines }))];
  return { lines: a.lines + b.lines, form, width, bodies: [...a.bodies, ...b.bodies], faults };
}

/** The outputs of all lines of a chunk, and the inputs of its failed lines; null where there are none. */
export function mergeLines(
  inputs: BulkChunk,
  part: ChunkPart,
): { outputs: UnencodedChunk; failedInputs: BulkChunk | null } {
  const offsets = faultlessOffsets(inputs);
  const ranFaults = part.faults.map((fault) => ({ ...fault, offset: offsets[fault.offset] as number }));
  const faults = [...inputs.faults, ...ranFaults].sort((a, b) => a.offset - b.offset);
  const { lines, origins, start } = inputs;
  const { form, width } = part;
  const outputs = { start, lines, faults, origins, form, width, body: part.bodies };
  if (faults.length === 0) return { outputs, failedInputs: null };
  return { outputs, failedInputs: failedOf(inputs, faults, new Set(part.faults.map(({ offset }) => offset))) };
}

/** The failed lines as a chunk of another batch; invalid lines keep their faults. */
function failedOf(inputs: BulkChunk, faults: readonly LineFault[], ranRows: ReadonlySet<number>): BulkChunk {
  const never = new Set(inputs.faults.map(({ offset }) => offset));
  const kept = faults.flatMap((fault, offset) => (never.has(fault.offset) ? [{ ...fault, offset }] : []));
  const origins = Uint32Array.from(faults, ({ offset }) => inputs.origins?.[offset] ?? inputs.start + offset);
  const rows = [...ranRows].sort((a, b) => a - b);
  const body = bodyOf(inputs, rows);
  return { start: 0, lines: faults.length, faults: kept, origins, form: inputs.form, width: 0, body };
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
