import { refusalCode } from "@millrace/shared/redis/redis-faults.js";
import { type ErrorCode, ServiceError } from "@millrace/shared/service/errors.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { ErrorRequestHandler, Response } from "express";
import type { Counter } from "prom-client";
import { awaitsContinue, bodyRemains, drainRemainingBody } from "./drain-body.js";

declare global {
  namespace Express {
    interface Locals {
      /** Problems are told in the form of the Open Inference Protocol. */
      openInference?: boolean;
    }
  }
}

/** Why submissions are turned away although nothing is wrong with them, and Redis is there. */
export const shedCodes = ["breaker_open", "memory_pressure", "overloaded"] as const satisfies readonly ErrorCode[];

/** The one table from codes to statuses; a code without a row does not compile. */
const statuses: Record<ErrorCode, readonly [status: number, title: string]> = {
  malformed_request: [400, "Malformed request"],
  malformed_json: [400, "Malformed JSON"],
  malformed_body: [400, "Malformed body"],
  bad_query: [400, "Bad query"],
  bad_header: [400, "Bad header"],
  unauthenticated: [401, "No or unknown key"],
  forbidden: [403, "Key lacks the scope"],
  not_found: [404, "Not found"],
  model_not_found: [404, "Unknown model"],
  version_not_found: [404, "Unknown version"],
  prediction_not_found: [404, "Unknown prediction"],
  batch_not_found: [404, "Unknown batch"],
  delivery_not_found: [404, "Unknown delivery"],
  redrive_not_found: [404, "Unknown redrive"],
  method_not_allowed: [405, "Method not allowed"],
  not_acceptable: [406, "Not acceptable"],
  unsupported_media_type: [415, "Unsupported content type"],
  state_conflict: [409, "State does not allow it"],
  idempotency_mismatch: [422, "Idempotency-Key reused"],
  body_too_large: [413, "Body too large"],
  uri_too_long: [414, "URL too long"],
  headers_too_large: [431, "Headers too large"],
  request_timeout: [408, "Request did not come in time"],
  expectation_failed: [417, "Expectation cannot be met"],
  invalid_request: [422, "Invalid request"],
  invalid_input: [422, "Invalid input"],
  not_supported: [422, "Not supported"],
  not_implemented: [501, "Not implemented"],
  inference_failed: [500, "Inference failed"],
  not_in_time: [504, "Not done in time"],
  no_worker: [503, "No worker alive"],
  rate_limited: [429, "Too many requests"],
  queue_full: [429, "Queue full"],
  memory_pressure: [429, "Redis almost full"],
  breaker_open: [503, "Circuit breaker open"],
  overloaded: [503, "Too busy"],
  redis_unavailable: [503, "Redis unavailable"],
  redis_full: [503, "Redis full"],
  store_swapped: [503, "Store swapped"],
  shutting_down: [503, "Shutting down"],
  internal_error: [500, "Internal error"],
};

/** The status of a code, and its name for people. */
export function problemStatus(code: ErrorCode): { status: number; title: string } {
  const [status, title] = statuses[code];
  return { status, title };
}

/**
 * Writes a ServiceError as RFC 9457 `application/problem+json`. For clients of the Open Inference Protocol it also has
 * their `error`, and whatever is wrong with their request is a 400.
 */
export function sendProblem(response: Response, error: ServiceError): void {
  const protocol = response.locals.openInference === true;
  const ordinary = problemStatus(error.code).status;
  const status = protocol && (ordinary === 415 || ordinary === 422) ? 400 : ordinary;
  response.status(status);
  if (error.retryAfterSeconds !== undefined) response.set("Retry-After", String(error.retryAfterSeconds));
  if (status === 401) response.set("WWW-Authenticate", 'Bearer realm="millrace"');
  response.set(error.headers);
  response.setHeader("Content-Type", "application/problem+json; charset=utf-8");
  const body = problemJson(error, response.locals.requestId, { status, ...(protocol && { error: error.message }) });
  response.setHeader("Content-Length", Buffer.byteLength(body));
  const sent = response.req.method === "HEAD" ? "" : body;
  if (bodyRemains(response.req)) {
    // A client that still waits for 100 Continue may send its next request where the body would be.
    if (awaitsContinue(response.req)) response.setHeader("Connection", "close");
    response.write(sent);
    drainRemainingBody(response.req, () => response.end());
  } else response.end(sent);
}

/** The body of a problem. */
export function problemJson(error: ServiceError, requestId: string, rest: object = {}): string {
  const { status, title } = problemStatus(error.code);
  return JSON.stringify({
    type: "about:blank",
    title,
    status,
    detail: error.message,
    code: error.code,
    request_id: requestId,
    errors: error.complaints,
    ...rest,
  });
}

/** The last middleware: every fault becomes a problem, and what is private about it goes to the log only. */
export function problemHandler(log: Logger, { shed }: { shed: Counter<"reason"> }): ErrorRequestHandler {
  return (fault: unknown, request, response, _next) => {
    // A client that went away needs no answer, and it is no fault of this service.
    if (request.destroyed && !request.complete) {
      log.debug("the client went away", { request_id: response.locals.requestId });
      response.destroy();
      return;
    }
    const error = asServiceError(fault);
    const line = { request_id: response.locals.requestId, code: error.code, error: error.cause ?? undefined };
    // Of what is turned away by the thousand, the count must do.
    if ((shedCodes as readonly ErrorCode[]).includes(error.code)) shed.inc({ reason: error.code });
    else if (error.code === "internal_error") log.error(`${request.method} failed`, { ...line, error: fault });
    else if (statuses[error.code][0] >= 500) log.warn(error.message, line);
    if (response.headersSent) response.destroy();
    else sendProblem(response, error);
  };
}

/** A fault as the client sees it: ours, Express's, Redis's, or an internal error. */
function asServiceError(fault: unknown): ServiceError {
  if (fault instanceof ServiceError) return fault;
  const { message = "", name, status } = fault as { message?: string; name?: string; status?: number };
  // What static files and the queue page refuse.
  if (status === 404) return new ServiceError("not_found", "There is nothing at this path.");
  if (status !== undefined && status >= 400 && status < 500) {
    const undecodable = fault instanceof URIError;
    const detail = undecodable ? "The path is not valid percent-encoded UTF-8." : "The request cannot be read.";
    return new ServiceError("malformed_request", detail);
  }
  if (isRedisFault(name, message)) {
    return refusalCode(message) === "OOM"
      ? new ServiceError("redis_full", "Redis has no memory for more work right now. Try again later.", {
          retryAfterSeconds: 5,
          cause: fault,
        })
      : new ServiceError(
          "redis_unavailable",
          "Redis does not answer. Repeat the request with the same Idempotency-Key.",
          {
            retryAfterSeconds: 1,
            cause: fault,
          },
        );
  }
  return new ServiceError("internal_error", "An internal error occurred.", { cause: fault });
}

const redisFaultNames = new Set([
  "MaxRetriesPerRequestError",
  "AbortError",
  "ClusterAllFailedError",
  "NotReplicatedError",
]);
const connectionFaultTexts = /Command timed out|Stream isn't writeable|Connection is closed|ECONN|ETIMEDOUT|EPIPE/;
const clusterFaultTexts = /Cluster isn't ready|Too many Cluster|Failed to refresh slots/;

function isRedisFault(name: string | undefined, message: string): boolean {
  // A script that fails by its own mistake is ours to mend, not the store's.
  if (name === "ReplyError") return refusalCode(message) !== null;
  return redisFaultNames.has(name ?? "") || connectionFaultTexts.test(message) || clusterFaultTexts.test(message);
}
