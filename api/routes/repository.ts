import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { type RequestHandler, Router } from "express";
import type { z } from "zod";
import type { JsonLimits } from "../http/check-json.js";
import { onlyQuery } from "../http/http-preferences.js";
import { optionalJsonBody, parseBody } from "../http/read-json.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { type ChangeDependencies, loadVersions, unloadVersions } from "../models/change-versions.js";
import { breakerOfVersion, type KnownModel } from "../models/model-directory.js";
import { unknownModel } from "../models/unknown-model.js";
import {
  indexRequestSchema,
  loadRequestSchema,
  type repositoryIndexSchema,
  unloadRequestSchema,
} from "../tensors/protocol-schema.js";

interface RepositoryDependencies extends JsonLimits, ChangeDependencies {
  log: Logger;
  mayReadModels: RequestHandler;
  mayOperate: RequestHandler;
}

/** The model repository extension of the Open Inference Protocol: the index, load and unload of whole models. */
export function repositoryRoutes(deps: RepositoryDependencies): Router {
  const router = Router();
  const { directory, log } = deps;
  // Clients of the protocol name no type.
  const json = optionalJsonBody(deps, { anyType: true });

  resource(router, "/v2/repository/index", {
    post: [
      deps.mayReadModels,
      json,
      async (request, response) => {
        onlyQuery(request);
        const { ready } = parseBody(indexRequestSchema, request.body ?? {});
        const entries = await readIndex(deps);
        const shown = ready === true ? entries.filter(({ state }) => state === "READY") : entries;
        sendJson(response, 200, JSON.stringify(shown));
      },
    ],
  });

  resource(router, "/v2/repository/models/:model/load", {
    post: [
      deps.mayOperate,
      json,
      async (request, response) => {
        onlyQuery(request);
        parseBody(loadRequestSchema, request.body ?? {});
        const name = request.params.model;
        log.info("load ordered", { request_id: response.locals.requestId, model: name });
        const { ready } = await loadVersions(deps, name, undefined).catch((fault) => {
          // What is wrong with a model is a 400 to clients of the protocol.
          const refused = fault instanceof ServiceError && fault.code === "state_conflict";
          throw refused ? new ServiceError("invalid_request", fault.message) : fault;
        });
        if (!ready) {
          const detail = "Not every worker has answered yet, and none serves the model. /v2/repository/index tells.";
          throw new ServiceError("not_in_time", detail);
        }
        sendJson(response, 200, "{}");
      },
    ],
  });

  resource(router, "/v2/repository/models/:model/unload", {
    post: [
      deps.mayOperate,
      json,
      async (request, response) => {
        onlyQuery(request);
        parseBody(unloadRequestSchema, request.body ?? {});
        const name = request.params.model;
        const model = await directory.look(name);
        if (model === null) throw unknownModel(name, directory.refused());
        log.info("unload ordered", { request_id: response.locals.requestId, model: name });
        await unloadVersions(deps, model, [...model.versions.keys()]);
        sendJson(response, 200, "{}");
      },
    ],
  });
  return router;
}

type IndexEntry = z.infer<typeof repositoryIndexSchema>[number];

/** Every version that is served, unloaded or refused, by model and version, with the reason why it is not ready. */
async function readIndex({ directory, redis }: RepositoryDependencies): Promise<IndexEntry[]> {
  const entries = new Map<string, IndexEntry>();
  const add = (name: string, version: string, reason: string) => {
    const entry: IndexEntry = { name, version, state: reason === "" ? "READY" : "UNAVAILABLE", reason };
    entries.set(`${name}/${version}`, entry);
  };
  const models = directory.allIncludingRetired();
  const unloaded = await Promise.all(models.map(({ keys }) => redis.smembers(keys.unloaded)));
  for (const [i, model] of models.entries()) {
    for (const version of model.versions.keys()) add(model.name, version, reasonUnready(model, version));
    // Some that a worker still finishes its runs with are among them.
    for (const version of unloaded[i] ?? []) add(model.name, version, "unloaded");
  }
  for (const { model, reason, version } of directory.refused()) {
    // One worker may refuse what another serves.
    if (entries.get(`${model}/${version ?? ""}`)?.state !== "READY") add(model, version ?? "", reason);
  }
  const byName = (a: IndexEntry, b: IndexEntry) =>
    a.name === b.name ? Number(a.version) - Number(b.version) : a.name < b.name ? -1 : 1;
  return [...entries.values()].sort(byName);
}

function reasonUnready(model: KnownModel, version: string): string {
  if ((model.workers.get(version) ?? 0) === 0) return "no living worker serves it";
  return breakerOfVersion(model, version).refuses
    ? "it dies on every worker that has it, and is tried again later"
    : "";
}
