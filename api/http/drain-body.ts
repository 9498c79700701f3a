import type { IncomingMessage } from "node:http";

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
