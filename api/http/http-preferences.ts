import type { IncomingMessage } from "node:http";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Request, RequestHandler } from "express";

export const isJson = (request: IncomingMessage): boolean =>
  /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(request.headers["content-type"] ?? "");

/** 415 for a body that does not say that it is JSON. */
export const wantsJson: RequestHandler = (request, _response, next) => {
  if (!isJson(request)) throw new ServiceError("unsupported_media_type", "Send application/json.");
  next();
};

/** 406 for a client that takes no JSON. */
export const acceptsJson: RequestHandler = (request, _response, next) => {
  const { accept } = request.headers;
  if (accept !== undefined && accept !== "*/*" && !request.accepts("application/json")) {
    throw new ServiceError("not_acceptable", "This path answers with application/json.");
  }
  next();
};

/** Seconds to wait from `?wait=` or `Prefer: wait=`, as ms. Throws for what is no whole number from 0 to 60. */
export function waitMsOf(text: unknown, code: "bad_query" | "bad_header"): number {
  if (text === undefined) return 0;
  if (typeof text !== "string" || !/^\d{1,2}$/.test(text) || Number(text) > 60) {
    throw new ServiceError(code, "wait must be a whole number of seconds from 0 to 60.");
  }
  return Number(text) * 1000;
}

/** The `wait` of a `Prefer` header (RFC 7240), other preferences passed over; undefined where there is none. */
export function preferredWait(request: Request): string | undefined {
  const { prefer } = request.headers;
  if (prefer === undefined) return undefined;
  for (const preference of String(prefer).split(/[,;]/)) {
    const match = /^\s*wait\s*=\s*"?([^"]*?)"?\s*$/i.exec(preference);
    if (match !== null) return match[1];
  }
  return undefined;
}

/** Whether a `Prefer` header asks not to wait for the end (RFC 7240). */
export const prefersAsync = (request: Request): boolean =>
  String(request.headers.prefer ?? "")
    .split(/[,;]/)
    .some((preference) => preference.trim().toLowerCase() === "respond-async");

/** Refuses a query parameter that the path does not know, and a query that is not percent-encoded UTF-8. */
export function onlyQuery(request: Request, ...known: string[]): void {
  if (!isEncoded(request.url)) throw new ServiceError("bad_query", "The query must be UTF-8, percent-encoded.");
  for (const name of Object.keys(request.query)) {
    if (!known.includes(name)) throw new ServiceError("bad_query", `Unknown query parameter "${name.slice(0, 64)}".`);
  }
}

/** Whether a URL says the same to everyone: the query's own parser puts U+FFFD where bytes are no UTF-8. */
function isEncoded(url: string): boolean {
  if (!url.includes("%")) return /^[\x21-\x7e]*$/.test(url);
  try {
    decodeURIComponent(url);
  } catch {
    return false;
  }
  return /^[\x21-\x7e]*$/.test(url);
}
