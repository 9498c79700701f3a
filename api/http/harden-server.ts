import { randomUUID } from "node:crypto";
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { type ErrorCode, ServiceError } from "@millrace/shared/service/errors.js";
import type { RequestHandler } from "express";
import { continueWhenRead } from "./drain-body.js";
import { problemJson, problemStatus } from "./problem.js";

/** Of all headers and the request line together. */
const largestHeadersBytes = 32 * 1024;
const mostHeaders = 100;
const longestUrl = 16 * 1024;

/** Strict parsing of requests, with a deadline for their headers. */
export const hardenedOptions: ServerOptions = {
  insecureHTTPParser: false,
  maxHeaderSize: largestHeadersBytes,
  headersTimeout: 10_000,
  connectionsCheckingInterval: 2000,
  keepAliveTimeout: 65_000,
  // Bodies have deadlines of their own, because an upload may take hours.
  requestTimeout: 0,
  // `strictRequest` says it in a problem.
  requireHostHeader: false,
};

/** Answers with a problem where Node would close the connection or send a bare status. */
export function hardenServer(server: Server): void {
  server.on("clientError", (fault: Error & { code?: string }, socket) => {
    const begun = (socket as { _httpMessage?: ServerResponse })._httpMessage?.headersSent === true;
    if (fault.code === "ECONNRESET" || !socket.writable || begun) socket.destroy();
    else endWithProblem(socket, ...unreadable(fault.code));
  });
  server.on("connect", (_request: IncomingMessage, socket: Duplex) => {
    socket.on("error", () => undefined);
    endWithProblem(socket, "method_not_allowed", "CONNECT is not allowed here.", "Allow: GET, HEAD, POST\r\n");
  });
  server.on("checkContinue", (request: IncomingMessage, response: ServerResponse) => {
    continueWhenRead(request, response);
    server.emit("request", request, response);
  });
  server.on("checkExpectation", (_request: IncomingMessage, response: ServerResponse) => {
    const detail = "Only Expect: 100-continue is supported.";
    endWithProblem(response.socket as Duplex, "expectation_failed", detail);
  });
}

/** Refuses what the parser lets pass although two readers could understand it in two ways, or none wants to read it. */
export const strictRequest: RequestHandler = (request, _response, next) => {
  if (request.url.length > longestUrl) {
    throw new ServiceError("uri_too_long", `The URL is longer than ${longestUrl} characters.`);
  }
  assertChunkedOnly(request.headers["transfer-encoding"]);
  const { rawHeaders } = request;
  if (rawHeaders.length > 2 * mostHeaders) {
    throw new ServiceError("headers_too_large", `There are more than ${mostHeaders} headers.`);
  }
  let hosts = 0;
  let authorizations = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string;
    if (name.length === 4 && name.toLowerCase() === "host") hosts += 1;
    else if (name.length === 13 && name.toLowerCase() === "authorization") authorizations += 1;
  }
  if (hosts > 1 || (hosts === 0 && request.httpVersionMinor > 0)) {
    throw new ServiceError("bad_header", "There must be exactly one Host header.");
  }
  if (authorizations > 1) throw new ServiceError("bad_header", "There must be at most one Authorization header.");
  next();
};

/**
 * Throws for a transfer coding before `chunked`, which the parser passes. It refuses by itself, with a 400, what does
 * not end in `chunked`, as the end of the body is then unknown.
 */
function assertChunkedOnly(header: string | undefined): void {
  if (header === undefined || header === "chunked") return;
  const codings = header.split(",").map((coding) => coding.trim().toLowerCase());
  if (codings.at(-1) !== "chunked") return;
  const others = codings.filter((coding) => coding !== "chunked");
  const headers = { Connection: "close" };
  if (others.length > 0) {
    const detail = "The only Transfer-Encoding is chunked. Compress a body by Content-Encoding.";
    throw new ServiceError("not_implemented", detail, { headers });
  }
  if (codings.length > 1) throw new ServiceError("bad_header", "The body is chunked more than once.", { headers });
}

function unreadable(code: string | undefined): [code: ErrorCode, detail: string] {
  if (code === "HPE_HEADER_OVERFLOW") {
    return ["headers_too_large", `The headers are larger than ${largestHeadersBytes} bytes.`];
  }
  if (code === "HPE_CHUNK_EXTENSIONS_OVERFLOW") return ["body_too_large", "The chunks have too many extensions."];
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") return ["request_timeout", "The request did not arrive in time."];
  return ["malformed_request", "The request is not valid HTTP."];
}

/** Writes a problem without the request's response, which there may be none of, and ends the connection. */
function endWithProblem(socket: Duplex, code: ErrorCode, detail: string, headers = ""): void {
  const requestId = randomUUID();
  const { status, title } = problemStatus(code);
  const body = problemJson(new ServiceError(code, detail), requestId);
  socket.end(
    `HTTP/1.1 ${status} ${title}\r\nConnection: close\r\nContent-Type: application/problem+json; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nX-Request-Id: ${requestId}\r\n` +
      `X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n${headers}\r\n${body}`,
    () => socket.destroy(),
  );
}
