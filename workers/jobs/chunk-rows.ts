import { type BulkChunk, splitParts } from "@millrace/shared/predictions/bulk-chunk.js";
import { failedLines } from "@millrace/shared/predictions/line-faults.js";
import { type PackedTensor, packParts, unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import type { BulkWork, RunQueue } from "../runs/work.js";

/** The valid lines of a chunk: all of them, or a part after the whole has killed a slot. */
export interface ChunkRows {
  count: number;
  /** Lines [from, to), as a slot is given them. */
  between(from: number, to: number): BulkWork;
  /** Whether they can be run in any parts. */
  table: boolean;
}

/** The valid lines of a chunk. */
export function rowsOfChunk({ body, faults, form, lines }: BulkChunk): ChunkRows {
  const count = lines - failedLines(faults);
  if (form === "packs") {
    const packs = splitParts(body);
    return { count, between: (from, to) => ({ packs: packs.slice(from, to) }), table: false };
  }
  if (count === 0) return { count, between: () => ({ packs: [] }), table: true };
  const [{ bytes, dtype, name, shape }] = unpackTensors(Buffer.from(body.buffer, body.byteOffset, body.byteLength)) as [
    PackedTensor,
  ];
  const stride = bytes.length / count;
  const between = (from: number, to: number) => {
    const part = bytes.subarray(from * stride, to * stride);
    return { table: packParts({ name, dtype, shape: [to - from, ...shape.slice(1)], bytes: part }) };
  };
  return { count, between, table: true };
}

/** Most rows of one run, which limits the wait of other works for the slot; and the fewest. */
const mostRunRows = 1024;
const leastRunRows = 128;

/** Rows of one call to a slot where the version runs each row alone. */
const mostAloneRows = 32;

/**
 * The first row of each run of a chunk, then the end: enough runs to keep every slot busy, unless they would be tiny.
 */
export function boundsOf(
  { count, table }: ChunkRows,
  slots: number,
  { joinable, maxBatchRows }: Pick<RunQueue, "joinable" | "maxBatchRows">,
): number[] {
  const runs = !joinable
    ? Math.max(Math.ceil(count / mostAloneRows), 1)
    : table
      ? Math.max(Math.ceil(count / mostRunRows), Math.min(slots, Math.floor(count / leastRunRows)), 1)
      : Math.max(Math.ceil(count / maxBatchRows), 1);
  return Array.from({ length: runs + 1 }, (_, i) => Math.floor((i * count) / runs));
}
