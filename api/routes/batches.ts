import { batchJson, batchStatuses } from "@millrace/shared/predictions/batch.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type Request, type RequestHandler, Router } from "express";
import type { RateLimits } from "../access/rate-limits.js";
import { batchQuery, queryMetadata, readBatchQuery } from "../batches/batch-options.js";
import { type OwnBatchDependencies, ownBatch } from "../batches/own-batch.js";
import { type TakeBatchDependencies, takeBatch } from "../batches/take-batch.js";
import { noBodyDeadline } from "../http/body-deadline.js";
import { acceptsJson, isJson, onlyQuery } from "../http/http-preferences.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { unknownModel } from "../models/unknown-model.js";
import { type Listed, listOwned, parseListQuery } from "../predictions/list-owned.js";
import { idempotencyKeyOf } from "../predictions/submission.js";

/** `POST /v1/models/{model}/batches` and `GET /v1/batches`. */
export function batchesRoutes(
  deps: TakeBatchDependencies &
    OwnBatchDependencies & {
      limits: RateLimits | null;
      maySubmit: readonly RequestHandler[];
      mayList: readonly RequestHandler[];
    },
): Router {
  const router = Router();

  resource(router, "/v1/models/:model/batches", {
    post: [
      ...deps.maySubmit,
      noBodyDeadline,
      acceptsJson,
      async (request, response) => {
        const caller = response.locals.caller;
        const { owner } = caller;
        const form = formOf(request);
        onlyQuery(request, ...(form === "json" ? ["version"] : batchQuery));
        const options = readBatchQuery(request.query);
        const name = request.params.model;
        // A JSON body may name any version that is announced by now.
        const found = await (form === "json" ? deps.directory.findWithAll(name) : deps.directory.find(name));
        if (found === null) throw unknownModel(name, deps.directory.refused());
        const { version } = options;
        const model = version === undefined ? found : await deps.directory.withVersion(found, version);
        const { id, batch, replayed } = await takeBatch(deps, {
          request,
          model,
          owner,
          form,
          options,
          metadata: queryMetadata(request.query),
          requestId: response.locals.requestId,
          idempotencyKey: idempotencyKeyOf(request),
          mostRows: deps.limits?.mostRows ?? Number.POSITIVE_INFINITY,
          takeRows: async (rows) => deps.limits?.rows(caller, rows, response),
        });
        const shown = batch ?? (await ownBatch(deps, owner, id)).batch;
        response.setHeader("Location", `/v1/batches/${id}`);
        if (replayed) response.setHeader("Idempotency-Replayed", "true");
        sendJson(response, 202, batchJson(shown, deps.clock.now()));
      },
    ],
  });

  const listed: Listed = {
    index: (keys, owner) => keys.ownedBatches(owner),
    async read(owner, id) {
      try {
        return batchJson((await ownBatch(deps, owner, id)).batch, deps.clock.now());
      } catch (fault) {
        if (fault instanceof ServiceError && fault.code === "batch_not_found") return null;
        throw fault;
      }
    },
  };
  resource(router, "/v1/batches", {
    get: [
      ...deps.mayList,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request, "owner", "model", "status", "limit", "cursor");
        const query = parseListQuery(request.query, batchStatuses);
        sendJson(response, 200, await listOwned(deps, listed, response.locals.reader, query));
      },
    ],
  });
  return router;
}

function formOf(request: Request): "json" | "ndjson" | "csv" {
  const type = (request.headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase();
  if (type === "application/x-ndjson" || type === "application/ndjson" || type === "application/jsonl") return "ndjson";
  if (type === "text/csv") return "csv";
  if (isJson(request)) return "json";
  throw new ServiceError("unsupported_media_type", "Send application/json, application/x-ndjson or text/csv.");
}
