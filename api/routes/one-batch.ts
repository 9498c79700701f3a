import { batchJson } from "@millrace/shared/predictions/batch.js";
import { noticeChannel } from "@millrace/shared/redis/keys.js";
import { cancelBatch } from "@millrace/shared/scripts/batches/cancel-batch.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type RequestHandler, Router } from "express";
import type { RateLimits } from "../access/rate-limits.js";
import { awaitBatch, ownBatch } from "../batches/own-batch.js";
import { type RetryBatchDependencies, retryBatch } from "../batches/retry-batch.js";
import { sendResults } from "../batches/send-results.js";
import { BatchWatch, streamBatchEvents } from "../batches/stream-batch-events.js";
import { acceptsJson, onlyQuery, waitMsOf } from "../http/http-preferences.js";
import { sendJson, whenGone } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { idempotencyKeyOf } from "../predictions/submission.js";

interface BatchDependencies extends RetryBatchDependencies {
  limits: RateLimits | null;
  maySubmit: readonly RequestHandler[];
  mayPredict: RequestHandler;
  mayReadBatch: readonly RequestHandler[];
}

/** `/v1/batches/{id}`: read, events, results, cancel, retry. */
export function oneBatchRoutes(deps: BatchDependencies): Router {
  const router = Router();
  const watch = new BatchWatch(deps.redis);
  resource(router, "/v1/batches/:id", {
    get: [
      ...deps.mayReadBatch,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request, "wait");
        const waitMs = waitMsOf(request.query.wait, "bad_query");
        const { owner } = response.locals.reader;
        const gone = whenGone(response);
        const json = await awaitBatch(deps, owner, request.params.id, waitMs, gone);
        if (!gone.aborted) sendJson(response, 200, json);
      },
    ],
  });

  resource(router, "/v1/batches/:id/events", {
    get: [
      ...deps.mayReadBatch,
      async (request, response) => {
        onlyQuery(request);
        const { batch, model } = await ownBatch(deps, response.locals.reader.owner, request.params.id);
        const id = request.params.id;
        await streamBatchEvents({ ...deps, watch }, model, id, batch, response, whenGone(response));
      },
    ],
  });

  resource(router, "/v1/batches/:id/results", {
    get: [...deps.mayReadBatch, (request, response) => sendResults(deps, request.params.id, request, response)],
  });

  resource(router, "/v1/batches/:id/cancel", {
    post: [
      deps.mayPredict,
      acceptsJson,
      async (request, response) => {
        const { batch, model } = await ownBatch(deps, response.locals.caller.owner, request.params.id);
        const id = request.params.id;
        const settings = {
          resultTtlMs: deps.resultTtlSeconds * 1000,
          channelPrefix: noticeChannel(deps.keyPrefix, ""),
        };
        const cancel = () =>
          deps.confirmed(model.keys, (redis) => cancelBatch(redis, model.keys, id, settings, deps.clock.now()));
        const json = batch.json === null ? await cancel() : null;
        if (json === null) throw new ServiceError("state_conflict", "The batch is already final.");
        sendJson(response, 200, json);
      },
    ],
  });

  resource(router, "/v1/batches/:id/retry", {
    post: [
      ...deps.maySubmit,
      acceptsJson,
      async (request, response) => {
        const caller = response.locals.caller;
        const { owner } = caller;
        const takeRows = async (rows: number) => deps.limits?.rows(caller, rows, response);
        const idempotencyKey = idempotencyKeyOf(request);
        const { id, replayed } = await retryBatch(deps, owner, request.params.id, idempotencyKey, takeRows);
        response.setHeader("Location", `/v1/batches/${id}`);
        if (replayed) response.setHeader("Idempotency-Replayed", "true");
        sendJson(response, 202, batchJson((await ownBatch(deps, owner, id)).batch, deps.clock.now()));
      },
    ],
  });
  return router;
}
