/** Every fault that a caller can be told of, by its stable code. `api/http/problem.ts` gives each its HTTP status. */
export const errorCodes = [
  "malformed_request",
  "malformed_json",
  "malformed_body",
  "bad_query",
  "bad_header",
  "unauthenticated",
  "forbidden",
  "not_found",
  "model_not_found",
  "version_not_found",
  "prediction_not_found",
  "batch_not_found",
  "delivery_not_found",
  "redrive_not_found",
  "method_not_allowed",
  "not_acceptable",
  "unsupported_media_type",
  "state_conflict",
  "idempotency_mismatch",
  "body_too_large",
  "uri_too_long",
  "headers_too_large",
  "request_timeout",
  "expectation_failed",
  "invalid_request",
  "invalid_input",
  "not_supported",
  "not_implemented",
  "inference_failed",
  "not_in_time",
  "no_worker",
  "rate_limited",
  "queue_full",
  "memory_pressure",
  "breaker_open",
  "overloaded",
  "redis_unavailable",
  "redis_full",
  "store_swapped",
  "shutting_down",
  "internal_error",
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** One thing that is wrong with a request; `pointer` is a JSON Pointer into its body. */
export interface Complaint {
  detail: string;
  pointer: string;
}

export interface ServiceErrorOptions {
  complaints?: Complaint[];
  retryAfterSeconds?: number;
  headers?: Record<string, string>;
  cause?: unknown;
}

/** A fault with a stable `code` and a message that is safe to show a client; whatever is private is its `cause`. */
export class ServiceError extends Error {
  readonly code: ErrorCode;
  readonly complaints: Complaint[];
  readonly retryAfterSeconds: number | undefined;
  readonly headers: Record<string, string>;

  constructor(code: ErrorCode, detail: string, options: ServiceErrorOptions = {}) {
    super(detail, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ServiceError";
    this.code = code;
    this.complaints = options.complaints ?? [];
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.headers = options.headers ?? {};
  }
}

/** One segment of a JSON Pointer (RFC 6901), escaped. */
export const pointerSegment = (segment: string | number): string =>
  `/${String(segment).replaceAll("~", "~0").replaceAll("/", "~1")}`;
