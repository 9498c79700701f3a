import type { Complaint } from "./errors.js";
import type { TabularManifest } from "./manifest.js";
import { describe, listedComplaints, type Packer, pointerSegment } from "./packer.js";
import { packTensors } from "./tensor-pack.js";

/** One column of a tabular model's input. */
export interface Feature {
  name: string;
  min?: number | undefined;
  max?: number | undefined;
}

/** The features of a tabular model in tensor order. */
export function featuresOf(manifest: TabularManifest): Feature[] {
  return manifest.input.features.map((entry) => (typeof entry === "string" ? { name: entry } : entry));
}

/**
 * Packs a row given as an array in feature order or as an object by feature name into a float32 tensor of shape
 * [1, features]. Every bad, missing and unknown feature is complained of at once.
 */
export function tabularPacker(manifest: TabularManifest): Packer {
  const features = featuresOf(manifest);
  const position = new Map(features.map((feature, i) => [feature.name, i]));
  const tensor = { name: manifest.input.tensor, dtype: "float32" as const, shape: [1, features.length] };
  const blank = packTensors([{ ...tensor, bytes: new Uint8Array(4 * features.length) }]);
  const dataOffset = blank.length - 4 * features.length;
  const row = new Float32Array(features.length);
  const rowBytes = Buffer.from(row.buffer);

  const finish = (complaints: Complaint[]) => {
    if (complaints.length > 0) return { complaints: complaints.slice(0, listedComplaints) };
    const pack = Buffer.allocUnsafe(blank.length);
    blank.copy(pack, 0, 0, dataOffset);
    rowBytes.copy(pack, dataOffset);
    return { pack, rows: 1 };
  };

  return (input) => {
    const complaints: Complaint[] = [];
    if (Array.isArray(input)) {
      if (input.length !== features.length) {
        const detail = `expected ${features.length} numbers in feature order, got ${input.length}`;
        complaints.push({ detail, pointer: "" });
        return finish(complaints);
      }
      for (let i = 0; i < features.length; i++) {
        row[i] = input[i];
        if (typeof input[i] !== "number" || !Number.isFinite(row[i]) || !inRange(input[i], features[i] as Feature)) {
          complaints.push({ detail: complain(features[i] as Feature, input[i]), pointer: pointerSegment(i) });
        }
      }
      return finish(complaints);
    }
    if (typeof input !== "object" || input === null) {
      complaints.push({
        detail: `expected an array of ${features.length} numbers or an object by feature name, got ${describe(input)}`,
        pointer: "",
      });
      return finish(complaints);
    }
    const record = input as Record<string, unknown>;
    for (let i = 0; i < features.length; i++) {
      const feature = features[i] as Feature;
      const pointer = pointerSegment(feature.name);
      if (!Object.hasOwn(record, feature.name)) {
        complaints.push({ detail: `feature "${feature.name}" is missing`, pointer });
        continue;
      }
      const value = record[feature.name];
      row[i] = value as number;
      if (typeof value !== "number" || !Number.isFinite(row[i]) || !inRange(value, feature)) {
        complaints.push({ detail: complain(feature, value), pointer });
      }
    }
    for (const name of Object.keys(record)) {
      if (!position.has(name)) {
        complaints.push({ detail: `feature "${name}" is unknown`, pointer: pointerSegment(name) });
      }
    }
    return finish(complaints);
  };
}

const inRange = (value: number, { min, max }: Feature): boolean =>
  (min === undefined || value >= min) && (max === undefined || value <= max);

function complain(feature: Feature, value: unknown): string {
  const what = `feature "${feature.name}"`;
  if (typeof value !== "number") return `${what} must be a number, got ${describe(value)}`;
  if (!Number.isFinite(Math.fround(value))) return `${what} is beyond the range of a 32-bit float`;
  return `${what} must be between ${feature.min ?? "-∞"} and ${feature.max ?? "∞"}, got ${value}`;
}
