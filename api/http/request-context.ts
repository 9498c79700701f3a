import { randomUUID } from "node:crypto";
import type { RequestHandler, Response } from "express";
import type { Counter, Histogram } from "prom-client";

declare global {
  namespace Express {
    interface Locals {
      /** The caller's `X-Request-Id`, or one of our own. */
      requestId: string;
    }
  }
}

const requestIdPattern = /^[A-Za-z0-9_.:/+=-]{1,128}$/;

/** Routes that are asked by machines alone, whose answers say nothing of callers. */
const probes = new Set(["/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"]);

/** The class of a status as an alert counts it: what is not implemented is the caller's fault. */
const classOf = (status: number): string => (status === 501 ? "4xx" : `${Math.floor(status / 100)}xx`);

/** Gives each request its id (the caller's, where it is usable) and times it by route template. */
export function requestContext(metrics: {
  http: Histogram<"method" | "route" | "status">;
  responses: Counter<"class">;
}): RequestHandler {
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
      if (!probes.has(route)) metrics.responses.inc({ class: classOf(response.statusCode) });
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
