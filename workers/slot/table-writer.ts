import type { Manifest } from "@millrace/shared/models/manifest.js";
import { encodeChunk, joinParts } from "@millrace/shared/predictions/bulk-chunk.js";
import { addFault, type LineFault, longestDetail } from "@millrace/shared/predictions/line-faults.js";
import { activationOf } from "../heads/class-probabilities.js";
import type { Head } from "../heads/head.js";
import { outputValues } from "../heads/output-values.js";
import type { Tensors } from "./engine.js";

/** Gathers the outputs of a table's rows, in order, as a chunk of `bulk-chunk.ts`. */
export interface TableWriter {
  add(outputs: Tensors, rows: number): void;
  /** Adds a row without an output. */
  fail(detail: string): void;
  finish(): Buffer;
}

/** Keeps a classifier's rows as class index and probabilities, rows of other heads as JSON. */
export function tableWriter(manifest: Manifest, head: Head): TableWriter {
  const faults: LineFault[] = [];
  const parts: Uint8Array[] = [];
  let lines = 0;
  const fail = (detail: string) => {
    addFault(faults, lines, "inference_failed", detail.slice(0, longestDetail));
    lines += 1;
  };
  const { output } = manifest;
  if (output.head === "classifier") {
    const width = output.labels.length;
    const activate = activationOf(output.activation);
    return {
      add(outputs, rows) {
        const found = outputValues(outputs[output.probabilities], output.probabilities, width, [0, rows]);
        if (typeof found === "string") {
          for (let r = 0; r < rows; r++) fail(found);
          return;
        }
        const given = activate === null ? found.values : activated(found.values, rows, width, activate);
        // The label is chosen at full precision; the kept probabilities are 32 bits each.
        const kept = given instanceof Float32Array ? given : Float32Array.from(given);
        // Copied as 16-bit halves, since a record may begin at any second byte; a copying call for each row would cost
        // as much as the run.
        const halves = new Uint16Array(kept.buffer, kept.byteOffset, 2 * kept.length);
        const part = new Uint16Array((1 + 2 * width) * rows);
        let at = 0;
        for (let r = 0; r < rows; r++) {
          const best = indexOfLargest(given, r * width, width);
          // A value outside the range of 32-bit floats has no finite form in them.
          if (best < 0 || (kept !== given && indexOfLargest(kept, r * width, width) < 0)) {
            fail("the model gave a probability that is not finite");
            continue;
          }
          // With more classes than 16 bits can count, `classIn` of `bulk-chunk.ts` finds the largest itself.
          part[at++] = best;
          const end = 2 * width * (r + 1);
          for (let h = 2 * width * r; h < end; h++) part[at++] = halves[h] as number;
          lines += 1;
        }
        parts.push(new Uint8Array(part.buffer, 0, 2 * at));
      },
      fail,
      finish: () => encodeChunk({ start: 0, lines, faults, origins: null, form: "classes", width, body: parts }),
    };
  }
  return {
    add(outputs, rows) {
      for (let r = 0; r < rows; r++) {
        // All output entries of a single-row run belong to that row, whatever their number.
        const read = head.read(outputs, rows === 1 ? null : [r, r + 1]);
        if (typeof read === "string") fail(read);
        else {
          parts.push(Buffer.from(read.json));
          lines += 1;
        }
      }
    },
    fail,
    finish: () =>
      encodeChunk({ start: 0, lines, faults, origins: null, form: "json", width: 0, body: joinParts(parts) }),
  };
}

/** The numbers of all rows, activated row by row. */
function activated(
  values: ArrayLike<number>,
  rows: number,
  width: number,
  activate: NonNullable<ReturnType<typeof activationOf>>,
): Float64Array {
  const all = new Float64Array(rows * width);
  for (let r = 0; r < rows; r++) all.set(activate(values, r * width, width), r * width);
  return all;
}

/** The first of the largest values; -1 where one is not finite. */
function indexOfLargest(values: ArrayLike<number>, from: number, count: number): number {
  let best = 0;
  let largest = Number.NEGATIVE_INFINITY;
  for (let c = 0; c < count; c++) {
    const value = values[from + c] as number;
    // True for infinities and NaN.
    if (value - value !== 0) return -1;
    if (value > largest) {
      largest = value;
      best = c;
    }
  }
  return best;
}
