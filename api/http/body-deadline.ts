import { ServiceError } from "@millrace/shared/service/errors.js";
import type { RequestHandler } from "express";
import { drainRemainingBody, hasBody } from "./drain-body.js";
import { sendProblem } from "./problem.js";

declare global {
  namespace Express {
    interface Locals {
      /** Lets the body come later than the deadline. */
      stopBodyDeadline?: () => void;
    }
  }
}

/**
 * Refuses a request whose body does not come within `deadlineMs`, unless its route has `noBodyDeadline`. After
 * answering, the rest of the request body is drained briefly.
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
          sendProblem(response, new ServiceError("request_timeout", "The body did not arrive in time."));
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
