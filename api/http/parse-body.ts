import { pointerSegment, ServiceError } from "@millrace/shared/service/errors.js";
import type { z } from "zod";

/** Reads a body by its schema. Throws `invalid_request` with everything that is wrong with it, unknown fields included. */
export function parseBody<S extends z.ZodType>(schema: S, body: unknown): z.infer<S> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const complaints = parsed.error.issues.flatMap((issue) => {
    const pointer = issue.path.map((segment) => pointerSegment(String(segment))).join("");
    if (issue.code !== "unrecognized_keys") return [{ detail: issue.message, pointer }];
    return issue.keys.map((key) => ({ detail: `unknown field "${key}"`, pointer: pointer + pointerSegment(key) }));
  });
  throw invalidRequest(complaints);
}

/** `invalid_request` with these complaints. */
export function invalidRequest(complaints: { detail: string; pointer: string }[]): ServiceError {
  const [first] = complaints;
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : "";
  return new ServiceError("invalid_request", `${first?.pointer || "body"}: ${first?.detail}${more}`, { complaints });
}
