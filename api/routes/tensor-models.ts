import { readFileSync } from "node:fs";
import { readStatistics } from "@millrace/shared/predictions/statistics-tally.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type RequestHandler, Router } from "express";
import type { JsonLimits } from "../http/check-json.js";
import { onlyQuery } from "../http/http-preferences.js";
import { optionalJsonBody } from "../http/read-json.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import {
  breakerOfVersion,
  type KnownModel,
  type KnownVersion,
  type ModelDirectory,
} from "../models/model-directory.js";
import { unknownModel } from "../models/unknown-model.js";
import { tensorMetadata } from "../tensors/datatypes.js";
import { inputSpecs } from "../tensors/input-tensors.js";

const { version: serverVersion } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const serverMetadata = {
  name: "millrace",
  version: serverVersion,
  extensions: ["binary_tensor_data", "schedule_policy", "statistics", "model_repository"],
};

interface TensorModelDependencies extends JsonLimits {
  redis: RedisClient;
  directory: ModelDirectory;
  isWritable(): Promise<boolean>;
  stopping(): boolean;
  mayRead: RequestHandler;
  mayAdmin: RequestHandler;
}

/** Paths of the Open Inference Protocol about server and models: health, metadata, readiness, repository. */
export function tensorModelRoutes(deps: TensorModelDependencies): Router {
  const router = Router();
  const { mayAdmin, mayRead } = deps;
  // Clients of the protocol name no type.
  const json = optionalJsonBody(deps, { anyType: true });

  resource(router, "/v2", {
    get: [mayRead, (_request, response) => sendJson(response, 200, JSON.stringify(serverMetadata))],
  });
  resource(router, "/v2/health/live", { get: [(_request, response) => sendJson(response, 200, '{"live":true}')] });
  resource(router, "/v2/health/ready", {
    get: [
      async (_request, response) => {
        const ready = !deps.stopping() && (await deps.isWritable());
        if (!ready) response.setHeader("Retry-After", "1");
        sendJson(response, ready ? 200 : 503, JSON.stringify({ ready }));
      },
    ],
  });

  resource(router, "/v2/models/stats", {
    get: [
      mayRead,
      async (request, response) => {
        onlyQuery(request);
        const stats = await Promise.all(deps.directory.all().map((model) => modelStatistics(deps.redis, model)));
        sendJson(response, 200, JSON.stringify({ model_stats: stats.flat() }));
      },
    ],
  });
  for (const path of ["/v2/models/:model", "/v2/models/:model/versions/:version"] as const) {
    resource(router, path, {
      get: [
        mayRead,
        async (request, response) => {
          onlyQuery(request);
          const { known, model } = await askedVersion(deps.directory, request.params);
          const body = {
            name: model.name,
            versions: [...model.versions.keys()],
            platform: "onnxruntime_onnx",
            inputs: inputSpecs(known.announcement).map(tensorMetadata),
            outputs: known.announcement.outputs.map(tensorMetadata),
          };
          sendJson(response, 200, JSON.stringify(body));
        },
      ],
    });
    resource(router, `${path}/ready`, {
      get: [
        mayRead,
        async (request, response) => {
          onlyQuery(request);
          const { known, model } = await askedVersion(deps.directory, request.params);
          const version = versionIn(request.params);
          const workers = version === undefined ? model.workersAlive : model.workers.get(known.announcement.version);
          const ready = (workers ?? 0) > 0 && !breakerOfVersion(model, known.announcement.version).refuses;
          if (!ready) response.setHeader("Retry-After", "2");
          sendJson(response, ready ? 200 : 503, JSON.stringify({ name: model.name, ready }));
        },
      ],
    });
    resource(router, `${path}/stats`, {
      get: [
        mayRead,
        async (request, response) => {
          onlyQuery(request);
          const { model } = await askedVersion(deps.directory, request.params);
          const stats = await modelStatistics(deps.redis, model, versionIn(request.params));
          sendJson(response, 200, JSON.stringify({ model_stats: stats }));
        },
      ],
    });
  }

  resource(router, "/v2/repository/index", {
    post: [
      mayRead,
      json,
      (request, response) => {
        onlyQuery(request);
        const { ready } = (request.body ?? {}) as { ready?: unknown };
        const entries = deps.directory.all().flatMap((model) => [...model.versions.keys()].map(indexEntry(model)));
        const shown = ready === true ? entries.filter(({ state }) => state === "READY") : entries;
        sendJson(response, 200, JSON.stringify(shown));
      },
    ],
  });
  resource(router, "/v2/repository/models/:model/load", {
    post: [
      mayAdmin,
      async (request, response) => {
        const { model } = await askedVersion(deps.directory, request.params);
        // What is served is loaded; everything else is a matter of the workers' repositories.
        if (model.workersAlive > 0) return sendJson(response, 200, "{}");
        throw new ServiceError("not_supported", "To load a model, start a worker that has it.");
      },
    ],
  });
  resource(router, "/v2/repository/models/:model/unload", {
    post: [
      mayAdmin,
      async (request) => {
        await askedVersion(deps.directory, request.params);
        throw new ServiceError("not_supported", "To unload a model, stop the workers that have it.");
      },
    ],
  });
  return router;
}

/** The statistics of a model's versions, or of one. Preparing and reading tensors is part of what a run takes. */
function modelStatistics(redis: RedisClient, { keys, name, versions }: KnownModel, only?: string): Promise<object[]> {
  const asked = only === undefined ? [...versions.keys()] : [only];
  const notApart = { count: 0, ns: 0 };
  return Promise.all(
    asked.map(async (version) => {
      const { batches, kinds, lastInferenceAt, rows, runs } = await readStatistics(redis, keys, version);
      return {
        name,
        version,
        last_inference: lastInferenceAt,
        inference_count: rows,
        execution_count: runs,
        inference_stats: { ...kinds, compute_input: notApart, compute_output: notApart },
        batch_stats: batches.map(({ batchRows, ...infer }) => ({
          batch_size: batchRows,
          compute_input: notApart,
          compute_infer: infer,
          compute_output: notApart,
        })),
      };
    }),
  );
}

const indexEntry = (model: KnownModel) => (version: string) => {
  const reason =
    (model.workers.get(version) ?? 0) === 0
      ? "no living worker serves it"
      : breakerOfVersion(model, version).refuses
        ? "it dies on every worker that has it, and is tried again later"
        : "";
  return { name: model.name, version, state: reason === "" ? "READY" : "UNAVAILABLE", reason };
};

/** The parameters of a path that may name a version. */
type VersionPath = { model: string } | { model: string; version: string };

const versionIn = (params: VersionPath): string | undefined => ("version" in params ? params.version : undefined);

/**
 * The model of a path and the version that it names, or the default. Throws `model_not_found` and `version_not_found`.
 */
async function askedVersion(
  directory: ModelDirectory,
  params: VersionPath,
): Promise<{ model: KnownModel; known: KnownVersion }> {
  const { model: name } = params;
  const version = versionIn(params);
  const model = await directory.find(name);
  if (model === null) throw unknownModel(name);
  const known = model.versions.get(version ?? model.defaultVersion);
  if (known === undefined) throw new ServiceError("version_not_found", `The model has no version ${version}.`);
  return { model, known };
}
