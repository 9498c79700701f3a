import type { Complaint } from "../service/errors.js";

/** An input as a tensor pack and the number of rows in it, or everything that is wrong with it. */
export type Packed = { pack: Buffer; rows: number } | { complaints: Complaint[] };

/** Checks and packs one input; complaints point into the input itself, so `""` is the whole of it. */
export type Packer = (input: unknown) => Packed;

/** How many complaints about one input are listed. */
export const listedComplaints = 1000;

/** What a JSON value is, in words for a message. */
export function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "a number beyond any float";
  if (typeof value === "string") return "a string";
  return typeof value === "object" ? "an object" : `${value}`;
}
