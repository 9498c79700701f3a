import { type RequestHandler, Router } from "express";
import type { Caller } from "../authenticate.js";
import { awaitPrediction } from "../await-prediction.js";
import { cancelPrediction, readRetryable } from "../end-prediction.js";
import { acceptsJson } from "../http-preferences.js";
import type { RateLimits } from "../rate-limits.js";
import { onlyQuery, sendJson, waitMsOf, whenGone } from "../request-context.js";
import { resource } from "../resource.js";
import { streamEvents } from "../stream-events.js";
import { parseSubmission } from "../submission.js";
import { type SubmitDependencies, submitPrediction } from "../submit-prediction.js";

/** `/v1/predictions/{id}`: read, events, cancel, retry. */
export function predictionRoutes(
  deps: SubmitDependencies & { limits: RateLimits | null; mayPredict: RequestHandler; mayRead: RequestHandler },
): Router {
  const router = Router();

  resource(router, "/v1/predictions/:id", {
    get: [
      deps.mayRead,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request, "wait");
        const waitMs = waitMsOf(request.query.wait, "bad_query");
        const { owner } = response.locals.caller as Caller;
        const gone = whenGone(response);
        const found = await awaitPrediction(deps, owner, request.params.id as string, waitMs, gone);
        if (!gone.aborted) sendJson(response, 200, found.json);
      },
    ],
  });

  resource(router, "/v1/predictions/:id/events", {
    get: [
      deps.mayRead,
      async (request, response) => {
        onlyQuery(request);
        const { owner } = response.locals.caller as Caller;
        const last = request.headers["last-event-id"];
        const id = request.params.id as string;
        await streamEvents(deps, owner, id, typeof last === "string" ? last : undefined, response, whenGone(response));
      },
    ],
  });

  resource(router, "/v1/predictions/:id/cancel", {
    post: [
      deps.mayPredict,
      acceptsJson,
      async (request, response) => {
        const { owner } = response.locals.caller as Caller;
        sendJson(response, 200, await cancelPrediction(deps, owner, request.params.id as string));
      },
    ],
  });

  resource(router, "/v1/predictions/:id/retry", {
    post: [
      deps.mayPredict,
      acceptsJson,
      async (request, response) => {
        const { owner } = response.locals.caller as Caller;
        const of = request.params.id as string;
        const { input, metadata, model, version } = await readRetryable(deps, owner, of);
        await deps.limits?.rows(response.locals.caller as Caller, 1, response);
        const submitted = await submitPrediction(deps, {
          model: model.name,
          owner,
          submission: parseSubmission({ input: null, version, metadata, cache: false }),
          waitMs: 0,
          requestId: response.locals.requestId,
          traceparent: undefined,
          idempotencyKey: null,
          retry: { of, input },
        });
        response.setHeader("Location", `/v1/predictions/${submitted.id}`);
        sendJson(response, 202, submitted.json);
      },
    ],
  });
  return router;
}
