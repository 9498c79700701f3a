import type { Announcement } from "@millrace/shared/models/announcement.js";
import { summarizeShadows } from "@millrace/shared/models/shadow-counts.js";
import { queueDepths } from "@millrace/shared/monitoring/queue-depths.js";
import { featuresOf } from "@millrace/shared/packing/pack-tabular.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { fitsGlob } from "@millrace/shared/service/glob.js";
import { type RequestHandler, Router } from "express";
import type { z } from "zod";
import { modelsOf } from "../access/authenticate.js";
import { acceptsJson, onlyQuery } from "../http/http-preferences.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { breakerOfVersion, joiningOf, type KnownModel, type ModelDirectory } from "../models/model-directory.js";
import type { modelSchema, trafficAnswerSchema } from "../models/model-schema.js";
import { unknownModel } from "../models/unknown-model.js";

/** `GET /v1/models` and `GET /v1/models/{model}`. */
export function modelRoutes(deps: {
  directory: ModelDirectory;
  redis: RedisClient;
  clock: Clock;
  mayReadModels: RequestHandler;
}): Router {
  const router = Router();
  resource(router, "/v1/models", {
    get: [
      deps.mayReadModels,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request);
        const globs = modelsOf(response.locals.caller, "read", "operate");
        const isSeen = (name: string) => globs === null || fitsGlob(name, globs);
        const models = deps.directory.all().filter(({ name }) => isSeen(name));
        const data = await Promise.all(models.map((model) => describeModel(deps, model)));
        const refused = deps.directory.refused().filter(({ model }) => isSeen(model));
        sendJson(response, 200, JSON.stringify({ data, refused }));
      },
    ],
  });
  resource(router, "/v1/models/:model", {
    get: [
      deps.mayReadModels,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request);
        const model = await deps.directory.find(request.params.model);
        if (model === null || model.versions.size === 0) {
          throw unknownModel(request.params.model, deps.directory.refused());
        }
        sendJson(response, 200, JSON.stringify(await describeModel(deps, model)));
      },
    ],
  });
  return router;
}

async function describeModel(
  { clock, redis }: { redis: RedisClient; clock: Clock },
  model: KnownModel,
): Promise<z.infer<typeof modelSchema>> {
  const depth = await queueDepths(redis, model.keys, clock.now());
  const current = model.versions.get(model.defaultVersion)?.announcement;
  if (current === undefined) throw new Error("a model without versions is not listed");
  const { manifest } = current;
  return {
    name: model.name,
    object: "model",
    title: manifest.title ?? model.name,
    description: manifest.description ?? null,
    kind: manifest.kind,
    default_version: model.defaultVersion,
    versions: [...model.versions].map(([version, { announcement }]) => ({
      version,
      digest: announcement.digest,
      workers_alive: model.workers.get(version) ?? 0,
      circuit_breaker: breakerOfVersion(model, version).state,
      joining: joiningOf(model, announcement),
      metrics: announcement.manifest.metrics ?? {},
    })),
    refused: model.refusals.map(({ reason, version, worker }) => ({ version, worker, reason })),
    traffic: describeTraffic(model),
    shadows: summarizeShadows(await redis.hgetall(model.keys.shadows)).map(
      ({ agreement, counts, scoreDifference, shadow, version }) => ({
        ...{ version, shadow, ...counts, agreement, score_difference: scoreDifference },
      }),
    ),
    workers_alive: model.workersAlive,
    accepting: !breakerOfVersion(model, model.defaultVersion).refuses,
    queue: depth,
    input: inputSchema(current),
    output: describeOutput(current),
    joining: joiningOf(model, current),
    batching: { ...manifest.batching, joinable: joiningOf(model, current).mode !== "off" },
    timeout_ms: manifest.timeout_ms,
    attempts: manifest.attempts,
    sample_input: manifest.samples[0]?.input ?? null,
    urls: { self: `/v1/models/${model.name}`, predictions: `/v1/models/${model.name}/predictions` },
  };
}

function inputSchema({ inputs, manifest }: Announcement): z.infer<typeof modelSchema>["input"] {
  switch (manifest.kind) {
    case "tensor":
      return { kind: "tensor", tensors: inputs };
    case "tabular":
      return {
        kind: "tabular",
        features: featuresOf(manifest),
        derived: manifest.input.derived.map(({ name }) => name),
        forms: ["array in feature order", "object by feature name"],
      };
    case "text": {
      const { max_length, min_length, tokenizer } = manifest.input;
      const forms = ["string", tokenizer === undefined ? "object with text" : "object with text and pair"];
      return { kind: "text", min_length, max_length, forms };
    }
    case "image": {
      const { formats, max_bytes, max_pixels } = manifest.input;
      return { kind: "image", formats, max_bytes, max_pixels, forms: ["base64", "data URL"] };
    }
  }
}

function describeOutput({ manifest: { output }, outputs }: Announcement): z.infer<typeof modelSchema>["output"] {
  switch (output.head) {
    case "classifier":
    case "multi_label":
      return { head: output.head, labels: output.labels };
    case "anomaly":
      return { head: "anomaly", threshold: output.threshold };
    case "ensemble":
      return {
        head: "ensemble",
        labels: output.labels,
        members: output.members.map(({ kind, name, weight }) => ({ name, kind, weight })),
        vote: output.vote,
      };
    case "regressor":
    case "raw":
      return { head: output.head, tensors: outputs };
  }
}

/** Split of submissions that name no version; weights as shares of 1. */
export function describeTraffic({
  highestVersion,
  traffic,
  versions,
}: KnownModel): z.infer<typeof trafficAnswerSchema> {
  const { changedAt, previous, revision, shadow, weights } = traffic;
  const known = Object.entries(weights ?? { [highestVersion]: 1 }).filter(([version]) => versions.has(version));
  const sum = known.reduce((total, [, weight]) => total + weight, 0);
  return {
    automatic: weights === null,
    weights,
    shares: Object.fromEntries(known.map(([version, weight]) => [version, sum === 0 ? 0 : weight / sum])),
    shadow,
    revision,
    changed_at: changedAt === null ? null : new Date(changedAt).toISOString(),
    previous: previous === null ? null : { weights: previous.weights, shadow: previous.shadow },
  };
}
