import type { DerivedFeature, TabularInput } from "@millrace/shared/models/manifest-input.js";
import type { Preparation } from "./preparation.js";

type Derive = (row: Float32Array) => number;

/**
 * Adds the derived columns to rows of features. Each is computed in doubles from the float32 columns before it and
 * rounded to float32; a training script can do the same.
 */
export function deriving({ derived, features }: TabularInput): Preparation {
  const position = new Map<string, number>();
  for (const entry of features) position.set(typeof entry === "string" ? entry : entry.name, position.size);
  const steps = derived.map((feature) => {
    const step = stepOf(
      feature,
      feature.of.map((name) => position.get(name) as number),
    );
    position.set(feature.name, position.size);
    return step;
  });
  const given = features.length;
  const width = given + steps.length;
  return {
    padding: null,
    prepare([packed]) {
      if (packed === undefined) throw new Error("a tabular input has one tensor");
      const rows = packed.shape[0] as number;
      const bytes = new Uint8Array(4 * rows * width);
      for (let r = 0; r < rows; r++) {
        bytes.set(packed.bytes.subarray(4 * r * given, 4 * (r + 1) * given), 4 * r * width);
        const row = new Float32Array(bytes.buffer, 4 * r * width, width);
        steps.forEach((derive, i) => {
          const value = derive(row);
          // Clamped to the range of float32, so that no model ever sees an infinity.
          row[given + i] = Number.isFinite(value) ? Math.max(-largest, Math.min(largest, value)) : 0;
        });
      }
      return [{ ...packed, shape: [rows, width], bytes }];
    },
  };
}

const largest = 3.4028234663852886e38;

function stepOf({ op, period = 1, scale = 1 }: DerivedFeature, of: readonly number[]): Derive {
  const [a, b] = of as [number, number];
  const at = (row: Float32Array, i: number) => row[i] as number;
  const sum = (row: Float32Array) => of.reduce((total, i) => total + at(row, i), 0);
  const operations: Record<DerivedFeature["op"], Derive> = {
    ratio: (row) => (at(row, b) === 0 ? 0 : at(row, a) / at(row, b)),
    share: (row) => {
      const total = sum(row);
      return total === 0 ? 0 : at(row, a) / total;
    },
    sum,
    difference: (row) => at(row, a) - at(row, b),
    product: (row) => of.reduce((product, i) => product * at(row, i), 1),
    mean: (row) => sum(row) / of.length,
    min: (row) => of.reduce((least, i) => Math.min(least, at(row, i)), Number.POSITIVE_INFINITY),
    max: (row) => of.reduce((most, i) => Math.max(most, at(row, i)), Number.NEGATIVE_INFINITY),
    entropy: (row) => {
      const total = of.reduce((magnitude, i) => magnitude + Math.abs(at(row, i)), 0);
      if (total === 0) return 0;
      return of.reduce((bits, i) => {
        const share = Math.abs(at(row, i)) / total;
        return share === 0 ? bits : bits - share * Math.log2(share);
      }, 0);
    },
    log1p: (row) => Math.sign(at(row, a)) * Math.log1p(Math.abs(at(row, a))),
    sin: (row) => Math.sin((2 * Math.PI * at(row, a)) / period),
    cos: (row) => Math.cos((2 * Math.PI * at(row, a)) / period),
  };
  const operation = operations[op];
  return scale === 1 ? operation : (row) => operation(row) * scale;
}
