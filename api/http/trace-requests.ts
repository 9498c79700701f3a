import type { Tracing } from "@millrace/shared/service/tracing.js";
import type { RequestHandler } from "express";

/** Routes that are asked all the time and tell nobody anything in a trace. */
const quiet = new Set(["/health", "/ready", "/metrics", "/"]);

/**
 * A span for each request. What the request submits becomes part of it: its traceparent takes the place of the
 * caller's, whose span it is part of.
 */
export function traceRequests(tracing: Tracing): RequestHandler {
  return (request, response, next) => {
    const { traceparent } = request.headers;
    const span = tracing.start(request.method, {
      kind: "server",
      parent: typeof traceparent === "string" ? traceparent : undefined,
      attributes: { "http.request.method": request.method, "millrace.request_id": response.locals.requestId },
    });
    request.headers.traceparent = span.traceparent;
    response.on("close", () => {
      const route = request.route === undefined ? "none" : `${request.baseUrl}${request.route.path}`;
      if (quiet.has(route)) return;
      const { statusCode } = response;
      span.name(`${request.method} ${route}`);
      span.end({
        attributes: { "http.route": route, "http.response.status_code": statusCode },
        fault: statusCode >= 500 ? `answered ${statusCode}` : null,
      });
    });
    next();
  };
}
