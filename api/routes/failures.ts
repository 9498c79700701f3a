import { failureGroups } from "@millrace/shared/scripts/predictions/failures.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type FailureCode, failureCodes } from "@millrace/shared/service/failure-codes.js";
import { fitsGlob } from "@millrace/shared/service/glob.js";
import { type RequestHandler, Router } from "express";
import { modelsOf } from "../access/authenticate.js";
import { acceptsJson, onlyQuery, wantsJson } from "../http/http-preferences.js";
import { type JsonBodyLimits, jsonBody, parseBody } from "../http/read-json.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import type { KnownModel } from "../models/model-directory.js";
import {
  type MakeRedriveDependencies,
  makeRedrive,
  modelsNamed,
  redriveRequestSchema,
} from "../predictions/make-redrive.js";
import { idempotencyKeyOf } from "../predictions/submission.js";

interface FailureDependencies extends JsonBodyLimits, MakeRedriveDependencies {
  mayPredict: RequestHandler;
  mayRead: RequestHandler;
}

/**
 * `GET /v1/failures` and `POST /v1/failures/redrive`: the caller's own failed predictions that nobody has tried again.
 */
export function failureRoutes(deps: FailureDependencies): Router {
  const router = Router();

  resource(router, "/v1/failures", {
    get: [
      deps.mayRead,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request, "model", "code");
        const { code, model } = request.query;
        const known = failureCodes.find((each) => each === code);
        if (code !== undefined && known === undefined) {
          throw new ServiceError("bad_query", `code must be one of ${failureCodes.join(", ")}.`);
        }
        const caller = response.locals.caller;
        const models = await modelsNamed(deps.directory, model === undefined ? null : String(model));
        const globs = modelsOf(caller, "read");
        const seen = globs === null ? models : models.filter(({ name }) => fitsGlob(name, globs));
        sendJson(
          response,
          200,
          await listFailures(deps, caller.owner, seen, known === undefined ? failureCodes : [known]),
        );
      },
    ],
  });

  resource(router, "/v1/failures/redrive", {
    post: [
      deps.mayPredict,
      acceptsJson,
      wantsJson,
      jsonBody(deps),
      async (request, response) => {
        onlyQuery(request);
        const asked = parseBody(redriveRequestSchema, request.body);
        const caller = response.locals.caller;
        const key = idempotencyKeyOf(request);
        const { id, json, replayed } = await makeRedrive(deps, caller, asked, response.locals.requestId, key);
        response.setHeader("Location", `/v1/failures/redrives/${id}`);
        if (replayed) response.setHeader("Idempotency-Replayed", "true");
        sendJson(response, 202, json);
      },
    ],
  });
  return router;
}

const time = (ms: number): string => new Date(ms).toISOString();

/** An owner's failures by model and code, those first of which the last is the newest. */
async function listFailures(
  { redis, resultTtlSeconds }: FailureDependencies,
  owner: string,
  models: readonly KnownModel[],
  codes: readonly FailureCode[],
): Promise<string> {
  const sinceMs = Date.now() - resultTtlSeconds * 1000;
  const groups = await Promise.all(
    models.map(async ({ keys, name }) =>
      (await failureGroups(redis, keys, owner, codes, sinceMs)).map((group) => ({ ...group, model: name })),
    ),
  );
  const data = groups
    .flat()
    .sort((a, b) => b.lastAt - a.lastAt)
    .map(({ code, count, firstAt, ids, lastAt, model }) => ({
      object: "failure_group",
      model,
      code,
      count,
      first_failed_at: time(firstAt),
      last_failed_at: time(lastAt),
      examples: ids,
    }));
  return JSON.stringify({ data });
}
