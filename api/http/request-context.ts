import { randomUUID } from "node:crypto";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Request, RequestHandler, Response } from "express";
import type { ApiMetrics } from "../monitoring/metrics.js";
import { drainRemainingBody, hasBody } from "./drain-body.js";
import { sendProblem } from "./problem.js";

const requestIdPattern = /^[A-Za-z0-9_.:/+=-]{1,128}$/;

/**
 * Refuses a request whose body does not come within `deadlineMs`, unless its route has `noBodyDeadline`. After answering,
 * the rest of the request body is drained briefly.
 */
export function bodyDeadline(deadlineMs: number): RequestHandler {
  return (request, response, next) => {
    if (hasBody(request)) {
      const cutOff = () => {
        if (!request.complete) request.destroy();
      };
      response.once("finish", () => drainRemainingBody(request, cutOff));
      const timer = setTimeout(() => {
        response.once("close", () => request.destroy());
        if (response.headersSent) response.destroy();
        else {
          response.setHeader("Connection", "close");
          sendProblem(response, new ServiceError("request_timeout", "the body did not come in time"));
        }
      }, deadlineMs);
      const stop = () => clearTimeout(timer);
      response.locals.stopBodyDeadline = stop;
      request.once("end", stop);
      response.once("close", stop);
    }
    next();
  };
}

/** For the chain of a route whose body may take as long as it takes, while bytes arrive. */
export const noBodyDeadline: RequestHandler = (_request, response, next) => {
  response.locals.stopBodyDeadline?.();
  next();
};

/** Gives each request its id (the caller's, where it is usable) and times it by route template. */
export function requestContext(metrics: ApiMetrics): RequestHandler {
  return (request, response, next) => {
    const asked = request.headers["x-request-id"];
    const requestId = typeof asked === "string" && requestIdPattern.test(asked) ? asked : randomUUID();
    response.locals.requestId = requestId;
    response.setHeader("X-Request-Id", requestId);
    const begun = performance.now();
    response.on("finish", () => {
      const route = request.route === undefined ? "none" : `${request.baseUrl}${request.route.path}`;
      metrics.http.observe(
        { method: request.method, route, status: response.statusCode },
        (performance.now() - begun) / 1000,
      );
    });
    next();
  };
}

/** Seconds to wait from `?wait=` or `Prefer: wait=`, as ms. Throws for what is no whole number from 0 to 60. */
export function waitMsOf(text: unknown, code: "bad_query" | "bad_header"): number {
  if (text === undefined) return 0;
  if (typeof text !== "string" || !/^\d{1,2}$/.test(text) || Number(text) > 60) {
    throw new ServiceError(code, "wait must be a whole number of seconds from 0 to 60");
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

const traceparentPattern = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The `traceparent` of a request, where it is one. */
export const traceparentOf = (header: unknown): string | undefined =>
  typeof header === "string" && traceparentPattern.test(header) ? header : undefined;

/** Refuses a query parameter that the path does not know, and a query that is not percent-encoded UTF-8. */
export function onlyQuery(request: Request, ...known: string[]): void {
  if (!isEncoded(request.url)) throw new ServiceError("bad_query", "the query must be UTF-8, percent-encoded");
  for (const name of Object.keys(request.query)) {
    if (!known.includes(name)) throw new ServiceError("bad_query", `unknown query parameter "${name.slice(0, 64)}"`);
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

/** Sends JSON text that is written already. */
export function sendJson(response: Response, status: number, json: string | Buffer): void {
  response.statusCode = status;
  response.setHeader("Content-Type", "application/json; charset=utf-8");
  response.setHeader("Content-Length", Buffer.byteLength(json));
  response.end(json);
}

/** Aborts when the client goes away before it was answered. */
export function whenGone(response: Response): AbortSignal {
  const gone = new AbortController();
  if (response.destroyed) gone.abort();
  else response.on("close", () => gone.abort());
  return gone.signal;
}
