import type { z } from "zod";
import { type Complaint, pointerSegment } from "../service/errors.js";
import { type Manifest, manifestSchema } from "./manifest.js";

type Issue = z.core.$ZodIssue;

/** Reads the text of a `model.json`: the manifest, or all of its faults by JSON Pointer. */
export function readManifest(text: string): { manifest: Manifest } | { complaints: Complaint[] } {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (fault) {
    return { complaints: [{ pointer: "", detail: `is no JSON: ${(fault as Error).message}` }] };
  }
  const parsed = manifestSchema.safeParse(json, { reportInput: true });
  if (parsed.success) return { manifest: parsed.data };
  return { complaints: parsed.error.issues.flatMap((issue) => complaintsOf(issue, [])) };
}

/** The complaints about one file as text. */
export const complaintsText = (file: string, complaints: readonly Complaint[]): string =>
  complaints.map(({ detail, pointer }) => `${file}${pointer === "" ? "" : ` ${pointer}`}: ${detail}`).join("; ");

function complaintsOf(issue: Issue, above: readonly PropertyKey[]): Complaint[] {
  const path = [...above, ...issue.path];
  const pointer = path.map((segment) => pointerSegment(String(segment))).join("");
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ pointer: pointer + pointerSegment(key), detail: "is no field of a manifest" }));
  }
  if (issue.code === "invalid_union") {
    // The intended option is the one whose faults lie below its root.
    const meant = issue.errors.find((faults) => faults.every((fault) => fault.path.length > 0));
    if (meant !== undefined) return meant.flatMap((fault) => complaintsOf(fault, path));
    const options = "options" in issue && Array.isArray(issue.options) ? issue.options : [];
    if (options.length > 0) {
      return [{ pointer, detail: `expected one of ${options.map((option) => `"${String(option)}"`).join(", ")}` }];
    }
    const expectations = new Set(issue.errors.flat().map((fault) => expectation(fault)));
    return [{ pointer, detail: [...expectations].join(", or ") }];
  }
  return [{ pointer, detail: expectation(issue) }];
}

/** The expected and the actual kind of a value. */
function expectation(issue: Issue): string {
  if (issue.code === "invalid_type") {
    const article = /^[aio]/.test(issue.expected) ? "an" : "a";
    const expected = issue.expected === "int" ? "a whole number" : `${article} ${issue.expected}`;
    return issue.input === undefined
      ? `is missing: expected ${expected}`
      : `expected ${expected}, got ${kindOf(issue.input)}`;
  }
  return issue.message.replace(/^Invalid input: /, "");
}

const kindOf = (value: unknown): string =>
  value === null
    ? "null"
    : Array.isArray(value)
      ? "an array"
      : typeof value === "object"
        ? "an object"
        : `a ${typeof value}`;
