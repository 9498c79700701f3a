import { predictionStatuses } from "@millrace/shared/predictions/prediction.js";
import { rawMember } from "@millrace/shared/predictions/raw-member.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type RequestHandler, type Response, Router } from "express";
import type { RateLimits } from "../access/rate-limits.js";
import { acceptsJson, onlyQuery, preferredWait, waitMsOf, wantsJson } from "../http/http-preferences.js";
import { type JsonBodyLimits, jsonBody } from "../http/read-json.js";
import { sendJson, traceparentOf, whenGone } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { awaitPrediction } from "../predictions/await-end.js";
import { type Listed, listOwned, parseListQuery } from "../predictions/list-owned.js";
import { lookUpPrediction } from "../predictions/look-up-prediction.js";
import { compactMetadata, idempotencyKeyOf, parseSubmission } from "../predictions/submission.js";
import {
  markJoined,
  type SubmitDependencies,
  type Submitted,
  submitPrediction,
} from "../predictions/submit-prediction.js";

declare global {
  namespace Express {
    interface Locals {
      /** The `metadata` of a submission, as JSON text. */
      rawMetadata?: string | undefined;
    }
  }
}

/** `POST /v1/models/{model}/predictions` and `GET /v1/predictions`. */
export function predictionsRoutes(
  deps: SubmitDependencies &
    JsonBodyLimits & {
      limits: RateLimits | null;
      maySubmit: readonly RequestHandler[];
      mayList: readonly RequestHandler[];
    },
): Router {
  const router = Router();
  const readBody = jsonBody(deps, (bytes, { body }, response) => {
    if (Object.hasOwn(Object(body), "metadata")) response.locals.rawMetadata = rawMember(bytes, "metadata");
  });

  resource(router, "/v1/models/:model/predictions", {
    post: [
      ...deps.maySubmit,
      acceptsJson,
      wantsJson,
      readBody,
      async (request, response) => {
        onlyQuery(request);
        const wait = preferredWait(request);
        const waitMs = waitMsOf(wait, "bad_header");
        const caller = response.locals.caller;
        const { owner } = caller;
        const idempotencyKey = idempotencyKeyOf(request);
        const submission = parseSubmission(request.body);
        if (deps.limits !== null) await deps.limits.rows(caller, 1, response);
        const submitted = await submitPrediction(deps, {
          model: request.params.model,
          owner,
          submission,
          metadata: compactMetadata(response.locals.rawMetadata),
          waitMs,
          requestId: response.locals.requestId,
          traceparent: traceparentOf(request.headers.traceparent),
          idempotencyKey,
          takeRows: async (rows) => deps.limits?.rows(caller, rows, response),
        });
        response.setHeader("Location", `/v1/predictions/${submitted.id}`);
        if (submitted.replayed) response.setHeader("Idempotency-Replayed", "true");
        await answerSubmission(deps, response, owner, submitted, wait, waitMs);
      },
    ],
  });

  const listed: Listed = {
    index: (keys, owner) => keys.owned(owner),
    async read(owner, id) {
      try {
        return (await lookUpPrediction(deps, owner, id)).json;
      } catch (fault) {
        if (fault instanceof ServiceError && fault.code === "prediction_not_found") return null;
        throw fault;
      }
    },
  };
  resource(router, "/v1/predictions", {
    get: [
      ...deps.mayList,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request, "owner", "model", "status", "limit", "cursor");
        sendJson(
          response,
          200,
          await listOwned(deps, listed, response.locals.reader, parseListQuery(request.query, predictionStatuses)),
        );
      },
    ],
  });
  return router;
}

/** 200 with what is final, by now or within the wait that the caller prefers; else 202 with what it is. */
async function answerSubmission(
  deps: SubmitDependencies,
  response: Response,
  owner: string,
  submitted: Submitted,
  wait: string | undefined,
  waitMs: number,
): Promise<void> {
  const { cached, final, id, joined, json, waiter } = submitted;
  if (cached) return sendJson(response, 200, json);
  if (waitMs === 0) return sendJson(response, 202, json);
  const gone = whenGone(response);
  const applied = () => response.setHeader("Preference-Applied", `wait=${wait}`);
  if (final) {
    applied();
    return sendJson(response, 200, json);
  }
  const latest = await awaitPrediction(deps, owner, id, waitMs, gone, waiter);
  if (gone.aborted) return;
  applied();
  const shown = joined ? markJoined(latest.json) : latest.json;
  sendJson(response, latest.final ? 200 : 202, shown);
}
