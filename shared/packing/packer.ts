import type { Complaint } from "../service/errors.js";

/** An input as a tensor pack with its number of rows, or all of its faults. */
export type Packed = { pack: Buffer; rows: number } | { complaints: Complaint[] };

/** Checks and packs one input; complaints point into the input itself, so `""` is the whole of it. */
export type Packer = (input: unknown) => Packed;

/** Most complaints listed for one input. */
export const listedComplaints = 1000;

/** The kind of a JSON value in words. */
export function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "a number beyond any float";
  if (typeof value === "string") return "a string";
  return typeof value === "object" ? "an object" : `${value}`;
}
