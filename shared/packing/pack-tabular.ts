import type { TabularManifest } from "../models/manifest.js";
import { parseDate } from "../models/parse-date.js";
import { type Complaint, pointerSegment } from "../service/errors.js";
import { packTensors } from "../tensors/tensor-pack.js";
import { describe, listedComplaints, type Packer } from "./packer.js";

/** One column of a tabular model's input. */
export type Feature = Exclude<TabularManifest["input"]["features"][number], string>;

/** The features of a tabular model in tensor order, without derived ones. */
export function featuresOf(manifest: TabularManifest): Feature[] {
  return manifest.input.features.map((entry) => (typeof entry === "string" ? { name: entry, type: "number" } : entry));
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
  const readers = features.map(readerOf);

  const finish = (complaints: Complaint[]) => {
    if (complaints.length > 0) return { complaints: complaints.slice(0, listedComplaints) };
    const pack = Buffer.allocUnsafe(blank.length);
    blank.copy(pack, 0, 0, dataOffset);
    rowBytes.copy(pack, dataOffset);
    return { pack, rows: 1 };
  };
  /** Writes a value to its column, or complains. */
  const put = (i: number, value: unknown): string | null => {
    const read = (readers[i] as Reader)(value);
    row[i] = read;
    return Number.isFinite(row[i]) ? null : complain(features[i] as Feature, value);
  };

  const kind = features.every(({ type }) => type === "number") ? "numbers" : "values";

  return (input) => {
    const complaints: Complaint[] = [];
    if (Array.isArray(input)) {
      if (input.length !== features.length) {
        const detail = `expected ${features.length} ${kind} in feature order, got ${input.length}`;
        complaints.push({ detail, pointer: "" });
        return finish(complaints);
      }
      for (let i = 0; i < features.length; i++) {
        const detail = put(i, input[i] ?? (features[i] as Feature).default ?? null);
        if (detail !== null) complaints.push({ detail, pointer: pointerSegment(i) });
      }
      return finish(complaints);
    }
    if (typeof input !== "object" || input === null) {
      complaints.push({
        detail: `expected an array of ${features.length} ${kind} or an object by feature name, got ${describe(input)}`,
        pointer: "",
      });
      return finish(complaints);
    }
    const record = input as Record<string, unknown>;
    for (let i = 0; i < features.length; i++) {
      const feature = features[i] as Feature;
      const given = Object.hasOwn(record, feature.name);
      if (!given && feature.default === undefined) {
        complaints.push({ detail: `feature "${feature.name}" is missing`, pointer: pointerSegment(feature.name) });
        continue;
      }
      const detail = put(i, given ? record[feature.name] : feature.default);
      if (detail !== null) complaints.push({ detail, pointer: pointerSegment(feature.name) });
    }
    for (const name of Object.keys(record)) {
      if (!position.has(name)) {
        complaints.push({ detail: `feature "${name}" is unknown`, pointer: pointerSegment(name) });
      }
    }
    return finish(complaints);
  };
}

/** The default of each feature as a number, in tensor order; NaN without one. */
export const packedDefaults = (features: readonly Feature[]): Float32Array =>
  Float32Array.from(features, (feature) => readerOf(feature)(feature.default ?? null));

/** A value as the model's number; NaN where the feature does not allow it. */
type Reader = (value: unknown) => number;

function readerOf({ max, min, part, type, values }: Feature): Reader {
  switch (type) {
    case "number":
      return (value) => {
        if (typeof value !== "number") return Number.NaN;
        return (min === undefined || value >= min) && (max === undefined || value <= max) ? value : Number.NaN;
      };
    case "category": {
      const places = new Map(values?.map((value, i) => [value, i]));
      return (value) => places.get(value as string) ?? Number.NaN;
    }
    case "date":
      return (value) => {
        const ms = typeof value === "string" ? parseDate(value) : Number.NaN;
        const days = Math.floor(ms / dayMs);
        if (part === "epoch_days") return days;
        // 1970 began on a Thursday.
        if (part === "day_of_week") return (((days + 3) % 7) + 7) % 7;
        return (ms - days * dayMs) / 1000;
      };
  }
}

const dayMs = 86_400_000;
const leapSecond = /:60(?:\.\d+)?(?:[Zz]|[+-])/;

function complain(feature: Feature, value: unknown): string {
  const what = `feature "${feature.name}"`;
  if (feature.type === "category") {
    const listed = feature.values?.slice(0, 20).map((known) => JSON.stringify(known)) ?? [];
    const more = (feature.values?.length ?? 0) > listed.length ? ", …" : "";
    return `${what} must be one of ${listed.join(", ")}${more}`;
  }
  if (feature.type === "date") {
    const shape = "an RFC 3339 date that exists, such as 2026-01-31 or 2026-01-31T09:30:00Z";
    return `${what} must be ${shape}${leapSecond.test(String(value)) ? "; leap seconds are not taken" : ""}`;
  }
  if (typeof value !== "number") return `${what} must be a number, got ${describe(value)}`;
  if (!Number.isFinite(Math.fround(value))) return `${what} is beyond the range of a 32-bit float`;
  return `${what} must be between ${feature.min ?? "-∞"} and ${feature.max ?? "∞"}, got ${value}`;
}
