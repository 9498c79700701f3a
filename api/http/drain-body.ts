import type { IncomingMessage, ServerResponse } from "node:http";

const drainMs = 2000;

/** Whether a request brings a body, read or not. */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["content-length"] !== undefined || headers["transfer-encoding"] !== undefined;

/** Whether more of a request's body is to come. */
export const bodyRemains = (request: IncomingMessage): boolean =>
  hasBody(request) && !request.complete && !request.destroyed;

/**
 * Reads past the rest of a request's body, for 2 s at the most, and then calls `whenOver`. A connection that is closed
 * while the client still sends is reset, and the answer is lost with it.
 */
export function drainRemainingBody(request: IncomingMessage, whenOver: () => void): void {
  if (!bodyRemains(request)) {
    whenOver();
    return;
  }
  const timer = setTimeout(whenOver, drainMs);
  request.once("end", () => {
    clearTimeout(timer);
    whenOver();
  });
  request.once("close", () => clearTimeout(timer));
  request.resume();
}

/** Requests whose client waits for 100 Continue, and sends its body only then. */
const awaiting = new WeakSet<IncomingMessage>();

/** Whether the client of a request still waits for 100 Continue. */
export const awaitsContinue = (request: IncomingMessage): boolean => awaiting.has(request);

/**
 * Says 100 Continue when the body is first read, so that a request that is refused without its body (by its key, its
 * type, its length) gets the final status alone.
 */
export function continueWhenRead(request: IncomingMessage, response: ServerResponse): void {
  awaiting.add(request);
  const read = request._read.bind(request);
  request._read = (size) => {
    request._read = read;
    if (!response.headersSent && awaiting.delete(request)) response.writeContinue();
    read(size);
  };
}
