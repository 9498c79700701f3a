import { readFileSync } from "node:fs";
import { readStatistics } from "@millrace/shared/predictions/statistics-tally.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { type RequestHandler, Router } from "express";
import { onlyQuery } from "../http/http-preferences.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import {
  breakerOfVersion,
  type KnownModel,
  type KnownVersion,
  type ModelDirectory,
  versionOf,
} from "../models/model-directory.js";
import { unknownModel } from "../models/unknown-model.js";
import { tensorMetadata } from "../tensors/datatypes.js";
import { inputSpecs } from "../tensors/input-tensors.js";
import { modelConfig } from "../tensors/model-config.js";

const { version: serverVersion } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const serverMetadata = {
  name: "millrace",
  version: serverVersion,
  extensions: ["binary_tensor_data", "schedule_policy", "statistics", "model_repository", "model_configuration"],
};

interface TensorModelDependencies {
  redis: RedisClient;
  directory: ModelDirectory;
  isWritable(): Promise<boolean>;
  stopping(): boolean;
  mayReadModels: RequestHandler;
}

/** Paths of the Open Inference Protocol about server and models: health, metadata, configuration, readiness. */
export function tensorModelRoutes(deps: TensorModelDependencies): Router {
  const router = Router();
  const { mayReadModels } = deps;

  resource(router, "/v2", {
    get: [mayReadModels, (_request, response) => sendJson(response, 200, JSON.stringify(serverMetadata))],
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
      mayReadModels,
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
        mayReadModels,
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
    resource(router, `${path}/config`, {
      get: [
        mayReadModels,
        async (request, response) => {
          onlyQuery(request);
          const { known, model } = await askedVersion(deps.directory, request.params);
          sendJson(response, 200, JSON.stringify(modelConfig(model, known.announcement)));
        },
      ],
    });
    resource(router, `${path}/ready`, {
      get: [
        mayReadModels,
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
        mayReadModels,
        async (request, response) => {
          onlyQuery(request);
          const { model } = await askedVersion(deps.directory, request.params);
          const stats = await modelStatistics(deps.redis, model, versionIn(request.params));
          sendJson(response, 200, JSON.stringify({ model_stats: stats }));
        },
      ],
    });
  }

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
  const found = await directory.find(name);
  if (found === null) throw unknownModel(name, directory.refused());
  const model = version === undefined ? found : await directory.withVersion(found, version);
  return { model, known: versionOf(model, version ?? model.defaultVersion) };
}
