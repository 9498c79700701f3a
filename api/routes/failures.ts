import { failureGroups } from "@millrace/shared/scripts/predictions/failures.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type FailureCode, failureCodes } from "@millrace/shared/service/failure-codes.js";
import { fitsGlob } from "@millrace/shared/service/glob.js";
import { type RequestHandler, Router } from "express";
import type { Audit } from "../access/audit.js";
import { modelsOf } from "../access/authenticate.js";
import { inPlaceOf } from "../access/read-as.js";
import { acceptsJson, onlyQuery, wantsJson } from "../http/http-preferences.js";
import { type JsonBodyLimits, jsonBody, parseBody } from "../http/read-json.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import type { KnownModel } from "../models/model-directory.js";
import {
  type MakeRedriveDependencies,
  makeRedrive,
  modelsNamed,
  type RedriveRequest,
  redriveFilterSchema,
  redriveRequestSchema,
} from "../predictions/make-redrive.js";
import { redriveAll } from "../predictions/redrive-all.js";
import { idempotencyKeyOf } from "../predictions/submission.js";

interface FailureDependencies extends JsonBodyLimits, MakeRedriveDependencies {
  audit: Audit;
  mayRedrive: readonly RequestHandler[];
  mayListFailures: readonly RequestHandler[];
}

/**
 * `GET /v1/failures` and `POST /v1/failures/redrive`: failed predictions that nobody has tried again; the caller's own,
 * or for operators those of any owner.
 */
export function failureRoutes(deps: FailureDependencies): Router {
  const router = Router();

  resource(router, "/v1/failures", {
    get: [
      ...deps.mayListFailures,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request, "owner", "model", "code");
        const { code, model } = request.query;
        const known = failureCodes.find((each) => each === code);
        if (code !== undefined && known === undefined) {
          throw new ServiceError("bad_query", `code must be one of ${failureCodes.join(", ")}.`);
        }
        const { reader } = response.locals;
        const models = await modelsNamed(deps.directory, model === undefined ? null : String(model));
        const globs = modelsOf(reader, "read", "operate");
        const seen = globs === null ? models : models.filter(({ name }) => fitsGlob(name, globs));
        sendJson(
          response,
          200,
          await listFailures(deps, reader.owner, seen, known === undefined ? failureCodes : [known]),
        );
      },
    ],
  });

  resource(router, "/v1/failures/redrive", {
    post: [
      ...deps.mayRedrive,
      acceptsJson,
      wantsJson,
      jsonBody(deps),
      async (request, response) => {
        onlyQuery(request);
        const { caller, requestId } = response.locals;
        // To a key that may not operate there is no such field.
        const schema = caller.scopes.has("operate") ? redriveRequestSchema : redriveFilterSchema;
        const { owner, ...filter }: RedriveRequest = parseBody(schema, request.body);
        const key = idempotencyKeyOf(request);
        if (owner !== undefined) {
          deps.audit.admin(request, response, caller.owner);
        } else if (!caller.scopes.has("predict")) {
          deps.audit.refused(request, response, "no scope predict", caller.owner);
          throw new ServiceError("forbidden", "The key lacks the scope predict, or the request an owner.");
        }
        if (owner === "*") {
          sendJson(response, 202, await redriveAll(deps, caller, filter, requestId, key));
          return;
        }
        const reader = owner === undefined ? caller : inPlaceOf(caller, owner, ["operate"]);
        const { id, json, replayed } = await makeRedrive(deps, reader, filter, requestId, key);
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
  { clock, redis, resultTtlSeconds }: FailureDependencies,
  owner: string,
  models: readonly KnownModel[],
  codes: readonly FailureCode[],
): Promise<string> {
  const sinceMs = clock.now() - resultTtlSeconds * 1000;
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
