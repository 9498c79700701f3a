import { randomUUID } from "node:crypto";
import type { RequestHandler, Response } from "express";
import type { Caller } from "../access/key-ring.js";
import type { ApiMetrics } from "../monitoring/metrics.js";

declare global {
  namespace Express {
    /** All that the handlers of one request hand on to those after them. */
    interface Locals {
      /** The caller's `X-Request-Id`, or one of our own; of every request. */
      requestId: string;
      /** The caller, behind `requireScope` only. */
      caller: Caller;
      /** Problems are told in the form of the Open Inference Protocol. */
      openInference?: boolean;
      /** Lets the body come later than the deadline. */
      stopBodyDeadline?: () => void;
      /** The limits that the answer tells of, by name. */
      rateLimits?: Map<string, { policy: string; state: string }>;
      /** The `metadata` of a submission, as JSON text. */
      rawMetadata?: string | undefined;
    }
  }
}

const requestIdPattern = /^[A-Za-z0-9_.:/+=-]{1,128}$/;

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

const traceparentPattern = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The `traceparent` of a request, where it is one. */
export const traceparentOf = (header: unknown): string | undefined =>
  typeof header === "string" && traceparentPattern.test(header) ? header : undefined;

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
