import type { IncomingMessage } from "node:http";
import { ServiceError } from "@millrace/shared/errors.js";
import express, { type RequestHandler, Router } from "express";
import type { Caller } from "../authenticate.js";
import { awaitPrediction, type LookUpDependencies } from "../look-up-prediction.js";
import { onlyQuery, preferredWait, sendJson, waitMsOf, whenGone } from "../request-context.js";
import { resource } from "../resource.js";
import { type SubmitDependencies, submitPrediction } from "../submit-prediction.js";

/** `POST /v1/models/{model}/predictions` and `GET /v1/predictions/{id}`. */
export function predictionRoutes(
  deps: SubmitDependencies &
    LookUpDependencies & { maxBodyBytes: number; mayPredict: RequestHandler; mayRead: RequestHandler },
): Router {
  const router = Router();
  const jsonBody = express.json({ limit: deps.maxBodyBytes, strict: false, type: isJson });

  resource(router, "/v1/models/:model/predictions", {
    post: [
      deps.mayPredict,
      acceptsJson,
      wantsJson,
      jsonBody,
      async (request, response) => {
        onlyQuery(request);
        const wait = preferredWait(request);
        const waitMs = waitMsOf(wait, "bad_header");
        const { owner } = response.locals.caller as Caller;
        if (request.headers["idempotency-key"] !== undefined) {
          // Taking it in silence would promise that a repetition is harmless.
          throw new ServiceError("bad_header", "Idempotency-Key is not honoured by this release; leave it out");
        }
        const { id, json, waiter } = await submitPrediction(deps, {
          model: request.params.model as string,
          owner,
          body: request.body,
          waitMs,
          requestId: response.locals.requestId,
          traceparent: traceparentOf(request.headers.traceparent),
        });
        response.setHeader("Location", `/v1/predictions/${id}`);
        if (waiter === null) return sendJson(response, 202, json);
        const gone = whenGone(response);
        gone.addEventListener("abort", () => waiter.close());
        let news = await waiter.next();
        while (news === "look") {
          const latest = await awaitPrediction(deps, owner, id, 0, gone);
          news = latest.final ? { owner, status: "succeeded", json: latest.json } : await waiter.next();
        }
        waiter.close();
        if (gone.aborted) return;
        response.setHeader("Preference-Applied", `wait=${wait}`);
        // The time is over: what it has become by now.
        if (news === null) return sendJson(response, 202, (await awaitPrediction(deps, owner, id, 0, gone)).json);
        sendJson(response, 200, news.json);
      },
    ],
  });

  resource(router, "/v1/predictions/:id", {
    get: [
      deps.mayRead,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request, "wait");
        const waitMs = waitMsOf(request.query.wait, "bad_query");
        const { owner } = response.locals.caller as Caller;
        const found = await awaitPrediction(deps, owner, request.params.id as string, waitMs, whenGone(response));
        sendJson(response, 200, found.json);
      },
    ],
  });
  return router;
}

const isJson = (request: IncomingMessage): boolean =>
  /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(request.headers["content-type"] ?? "");

/** 415 for a body that does not say that it is JSON. */
const wantsJson: RequestHandler = (request, _response, next) => {
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

const traceparentPattern = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

const traceparentOf = (header: unknown): string | undefined =>
  typeof header === "string" && traceparentPattern.test(header) ? header : undefined;
