import type { IncomingMessage } from "node:http";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { RequestHandler } from "express";

export const isJson = (request: IncomingMessage): boolean =>
  /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(request.headers["content-type"] ?? "");

/** 415 for a body that does not say that it is JSON. */
export const wantsJson: RequestHandler = (request, _response, next) => {
  if (!isJson(request)) throw new ServiceError("unsupported_media_type", "send application/json");
  next();
};

/** 406 for a client that takes no JSON. */
export const acceptsJson: RequestHandler = (request, _response, next) => {
  const { accept } = request.headers;
  if (accept !== undefined && accept !== "*/*" && !request.accepts("application/json")) {
    throw new ServiceError("not_acceptable", "this path answers with application/json");
  }
  next();
};
