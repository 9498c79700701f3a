import { pointerSegment, ServiceError } from "@millrace/shared/service/errors.js";
import type { Request, RequestHandler, Response } from "express";
import type { z } from "zod";
import { type JsonLimits, parseCheckedJson } from "./check-json.js";
import { hasBody } from "./drain-body.js";
import { isJson } from "./http-preferences.js";
import { type BodyLimits, readBody } from "./read-body.js";

/** Takes from the bytes of a body what its value, which is in `request.body`, has lost. */
export type ReadExactly = (bytes: Buffer, request: Request, response: Response) => void;

export interface JsonBodyLimits extends JsonLimits {
  /** Of the body, unpacked. */
  maxBodyBytes: number;
}

/**
 * Reads a JSON body into `request.body`, within the limits. `readExactly` is given the bytes of a body that is JSON.
 * Throws what `readBody` and `parseCheckedJson` throw, and `unsupported_media_type` for another character set than
 * UTF-8.
 */
export function jsonBody(limits: JsonBodyLimits, readExactly?: ReadExactly): RequestHandler {
  return reader({ maxBytes: limits.maxBodyBytes, limitName: "MAX_BODY_BYTES" }, (bytes, request, response) => {
    request.body = parseCheckedJson(bytes, limits);
    readExactly?.(bytes, request, response);
  });
}

/** Of a body that is a few options. */
const largestOptionsBytes = 102_400;

/**
 * Reads a short JSON body that may be left out: `request.body` is undefined then. A body must say that it is JSON,
 * unless `anyType`.
 */
export function optionalJsonBody(limits: JsonLimits, { anyType = false } = {}): RequestHandler {
  const bodyLimits = { maxBytes: largestOptionsBytes, limitName: null };
  const read = reader(bodyLimits, (bytes, request) => {
    request.body = bytes.length === 0 ? undefined : parseCheckedJson(bytes, limits);
  });
  return (request, response, next) => {
    if (!hasBody(request) || request.headers["content-length"] === "0") return next();
    if (!anyType && !isJson(request)) throw new ServiceError("unsupported_media_type", "Send application/json.");
    return read(request, response, next);
  };
}

function reader(limits: BodyLimits, parse: ReadExactly): RequestHandler {
  return (request, response, next) => {
    assertUtf8(request);
    const done = (bytes: Buffer) => {
      try {
        parse(bytes, request, response);
      } catch (fault) {
        return next(fault);
      }
      next();
    };
    readBody(request, limits, done, next);
  };
}

const charset = /;\s*charset\s*=\s*"?([^";\s]*)/i;

/**
 * Throws `unsupported_media_type` for JSON in another character set than UTF-8: JSON between systems is UTF-8 (RFC
 * 8259), and the same bytes would say something else.
 */
export function assertUtf8(request: Request): void {
  const named = charset.exec(request.headers["content-type"] ?? "")?.[1]?.toLowerCase();
  if (named !== undefined && named !== "utf-8" && named !== "utf8" && named !== "us-ascii") {
    throw new ServiceError("unsupported_media_type", "JSON must be UTF-8.");
  }
}

/**
 * Reads a body by its schema. Throws `invalid_request` with everything that is wrong with it, unknown fields included.
 */
export function parseBody<S extends z.ZodType>(schema: S, body: unknown): z.infer<S> {
  const parsed = schema.safeParse(body, { error: requiredFault });
  if (parsed.success) return parsed.data;
  const complaints = parsed.error.issues.flatMap((issue) => {
    const pointer = issue.path.map((segment) => pointerSegment(String(segment))).join("");
    if (issue.code !== "unrecognized_keys") return [{ detail: issue.message, pointer }];
    return issue.keys.map((key) => ({ detail: `unknown field "${key}"`, pointer: pointer + pointerSegment(key) }));
  });
  throw invalidRequest(complaints);
}

/** Complains of a field that was left out; JSON has no `undefined`. Undefined for all other faults. */
export const requiredFault = ({ input }: { input?: unknown }): string | undefined =>
  input === undefined ? "is required" : undefined;

/** `invalid_request` with these complaints. */
export function invalidRequest(complaints: { detail: string; pointer: string }[]): ServiceError {
  const [first] = complaints;
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : "";
  return new ServiceError("invalid_request", `${first?.pointer || "body"}: ${first?.detail}${more}`, { complaints });
}
