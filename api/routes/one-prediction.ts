import { ServiceError } from "@millrace/shared/service/errors.js";
import { type Request, type RequestHandler, Router } from "express";
import type { RateLimits } from "../access/rate-limits.js";
import { acceptedType, acceptsJson, onlyQuery, waitMsOf } from "../http/http-preferences.js";
import { sendJson, whenGone } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { awaitPrediction } from "../predictions/await-end.js";
import { cancelPrediction, modelOfId } from "../predictions/look-up-prediction.js";
import { acceptRetry, type RetryDependencies, readRetryable } from "../predictions/retry-prediction.js";
import { streamEvents } from "../predictions/stream-events.js";
import { idempotencyKeyOf, parseSubmission } from "../predictions/submission.js";
import { type SubmitDependencies, submitPrediction } from "../predictions/submit-prediction.js";
import { formOf } from "../tensors/infer-answer.js";
import { inferenceType, sendInference, sendWithOutput } from "../tensors/send-answer.js";

const readableTypes = ["application/json", inferenceType, "application/octet-stream"];

/**
 * The type to answer a read with: JSON as `/v1` has it; the form of the Open Inference Protocol as the request asked
 * for it; or that form with all outputs as binary data. Throws `not_acceptable`.
 */
function readableType(request: Request): string {
  const type = acceptedType(request, readableTypes);
  if (type === null) throw new ServiceError("not_acceptable", `This path answers with ${readableTypes.join(", ")}.`);
  return type;
}

/** `/v1/predictions/{id}`: read, events, cancel, retry. */
export function onePredictionRoutes(
  deps: SubmitDependencies &
    RetryDependencies & {
      limits: RateLimits | null;
      maySubmit: readonly RequestHandler[];
      mayPredict: RequestHandler;
      mayReadPrediction: readonly RequestHandler[];
    },
): Router {
  const router = Router();

  resource(router, "/v1/predictions/:id", {
    get: [
      ...deps.mayReadPrediction,
      async (request, response) => {
        const type = readableType(request);
        response.locals.openInference = type !== "application/json";
        onlyQuery(request, "wait");
        const waitMs = waitMsOf(request.query.wait, "bad_query");
        const { owner } = response.locals.reader;
        const gone = whenGone(response);
        const id = request.params.id;
        const { json, result } = await awaitPrediction(deps, owner, id, waitMs, gone);
        if (gone.aborted) return;
        response.vary("Accept");
        const plain = type === "application/json";
        const isBlob = result?.tensors !== undefined && "blob" in result.tensors;
        if (result === undefined || (plain && !isBlob)) return sendJson(response, plain ? 200 : 202, json);
        const model = await modelOfId(deps, id);
        if (plain) return sendWithOutput(deps.redis, model, result, request, response);
        const asked = formOf(result.form);
        const form = type === inferenceType ? asked : { ...asked, outputs: null, binaryOutput: true };
        await sendInference(deps, model, result, form, inferenceType, request, response);
      },
    ],
  });

  resource(router, "/v1/predictions/:id/events", {
    get: [
      ...deps.mayReadPrediction,
      async (request, response) => {
        onlyQuery(request);
        const { owner } = response.locals.reader;
        const id = request.params.id;
        await streamEvents(deps, owner, id, response, whenGone(response));
      },
    ],
  });

  resource(router, "/v1/predictions/:id/cancel", {
    post: [
      deps.mayPredict,
      acceptsJson,
      async (request, response) => {
        const { owner } = response.locals.caller;
        sendJson(response, 200, await cancelPrediction(deps, owner, request.params.id));
      },
    ],
  });

  resource(router, "/v1/predictions/:id/retry", {
    post: [
      ...deps.maySubmit,
      acceptsJson,
      async (request, response) => {
        const { owner } = response.locals.caller;
        const id = request.params.id;
        const { model, retryable } = await readRetryable(deps, owner, id);
        const { failure, metadata, version } = retryable;
        await deps.limits?.rows(response.locals.caller, retryable.rows, response);
        const accept = failure === null ? deps.accept : acceptRetry(deps, id, failure);
        const submitted = await submitPrediction(
          { ...deps, accept },
          {
            model: model.name,
            owner,
            submission: parseSubmission({ input: null, version, cache: false }),
            metadata,
            waitMs: 0,
            requestId: response.locals.requestId,
            traceparent: undefined,
            idempotencyKey: idempotencyKeyOf(request),
            retry: { ...retryable, of: id },
          },
        );
        response.setHeader("Location", `/v1/predictions/${submitted.id}`);
        if (submitted.replayed) response.setHeader("Idempotency-Replayed", "true");
        sendJson(response, 202, submitted.json);
      },
    ],
  });
  return router;
}
