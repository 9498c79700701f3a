import { driftHours } from "@millrace/shared/models/drift.js";
import { readDrift } from "@millrace/shared/models/read-drift.js";
import { readStatistics, type Statistics, windowHours } from "@millrace/shared/predictions/statistics.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { type RequestHandler, Router } from "express";
import type { z } from "zod";
import { acceptsJson, onlyQuery } from "../http/http-preferences.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import type { KnownModel, ModelDirectory } from "../models/model-directory.js";
import type { healthSchema, statisticsSchema } from "../monitoring/monitoring-schema.js";

interface Dependencies {
  directory: ModelDirectory;
  redis: RedisClient;
  keyPrefix: string;
  clock: Clock;
  mayReadModels: RequestHandler;
}

/** `GET /monitoring/health` and `/monitoring/statistics`, over all workers and the last 24 hours. */
export function monitoringRoutes(deps: Dependencies): Router {
  const router = Router();
  resource(router, "/monitoring/health", {
    get: [
      deps.mayReadModels,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request);
        sendJson(response, 200, JSON.stringify(await health(deps)));
      },
    ],
  });
  resource(router, "/monitoring/statistics", {
    get: [
      deps.mayReadModels,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request);
        const { owner, scopes } = response.locals.caller;
        const whose = scopes.has("inspect") || scopes.has("operate") ? null : owner;
        const models = await Promise.all(
          deps.directory.all().map(async (model) => [model.name, await statisticsOf(deps, model, whose)]),
        );
        const body = { window_seconds: windowHours * 3600, of: whose ?? "all", models: Object.fromEntries(models) };
        sendJson(response, 200, JSON.stringify(body));
      },
    ],
  });
  return router;
}

type Health = z.infer<typeof healthSchema>;
type StatisticsAnswer = z.infer<typeof statisticsSchema>;
type VersionAnswer = StatisticsAnswer["models"][string]["versions"][string];

async function health({ clock, directory, keyPrefix, redis }: Dependencies): Promise<Health> {
  const cache = { size: 0, hits: 0, misses: 0 };
  const models = await Promise.all(
    directory.all().map(async (model) => {
      const [{ all }, cached] = await Promise.all([
        readStatistics(redis, keyPrefix, model.name, null, clock.now()),
        redis.zcard(model.keys.cache),
      ]);
      cache.size += cached;
      cache.hits += all.cache.hits;
      cache.misses += all.cache.misses;
      const counts = Object.values(all.counts).reduce((sum, count) => sum + count, 0);
      return [
        model.name,
        {
          status: statusOf(model),
          prediction_count: counts,
          error_rate: all.errorRate ?? 0,
          avg_latency: all.meanMs === null ? null : all.meanMs / 1000,
          workers: model.workersAlive,
        },
      ] as const;
    }),
  );
  const asked = cache.hits + cache.misses;
  const refused = directory.refused();
  const isOk = refused.length === 0 && models.every(([, { status }]) => status === "ok");
  return {
    status: isOk ? "ok" : "degraded",
    models: Object.fromEntries(models),
    refused,
    cache: { prediction_cache: { ...cache, hit_rate: asked === 0 ? 0 : cache.hits / asked } },
    circuit_breakers: Object.fromEntries(directory.all().map((model) => [model.name, describeBreakers(model)])),
  };
}

/**
 * `unavailable` without a worker; `degraded` where a version that gets traffic has none, one could not be loaded, or
 * one dies on some worker.
 */
function statusOf(model: KnownModel): Health["models"][string]["status"] {
  const { breakers, defaultVersion, refusals, traffic, workers, workersAlive } = model;
  if (workersAlive === 0) return "unavailable";
  if ([...breakers.values()].some((breaker) => breaker.workers > 0)) return "degraded";
  const weights = traffic.weights ?? { [defaultVersion]: 1 };
  const lacking = Object.entries(weights).some(([version, weight]) => weight > 0 && !workers.has(version));
  return lacking || refusals.length > 0 ? "degraded" : "ok";
}

/** The breaker of each version; `workers`: on how many it is not closed. */
function describeBreakers({ breakers }: KnownModel): Health["circuit_breakers"][string] {
  return Object.fromEntries(
    [...breakers].map(([version, { retryAt, state, workers }]) => [
      version,
      { state, workers, retry_at: retryAt === null ? null : new Date(retryAt).toISOString() },
    ]),
  );
}

async function statisticsOf(
  deps: Dependencies,
  model: KnownModel,
  owner: string | null,
): Promise<StatisticsAnswer["models"][string]> {
  const { versions } = await readStatistics(deps.redis, deps.keyPrefix, model.name, owner, deps.clock.now());
  const names = new Set([...model.versions.keys(), ...versions.keys()]);
  const entries = await Promise.all(
    [...names].map(async (version) => {
      const figures = describe(versions.get(version) ?? null);
      return [version, { ...figures, drift: await driftOf(deps, model, version) }];
    }),
  );
  return { versions: Object.fromEntries(entries) };
}

async function driftOf(
  { clock, redis }: Dependencies,
  model: KnownModel,
  version: string,
): Promise<VersionAnswer["drift"]> {
  const baseline = model.versions.get(version)?.announcement.manifest.drift_baseline;
  if (baseline === undefined) return null;
  const { inputs, psi } = await readDrift(redis, model.keys, version, baseline, clock.now());
  return { window_seconds: driftHours * 3600, inputs, psi };
}

function describe(statistics: Statistics | null): Omit<VersionAnswer, "drift"> {
  const { cache, confidence, counts, errorRate, latencyMs } = statistics ?? nothing;
  const { hitRate, ...asked } = cache;
  return {
    counts,
    error_rate: errorRate,
    latency_ms: latencyMs ?? { queue: null, inference: null, total: null },
    confidence,
    cache: asked,
    hit_rate: hitRate,
  };
}

const nothing: Statistics = {
  counts: { succeeded: 0, failed: 0, canceled: 0, expired: 0 },
  latencyMs: null,
  meanMs: null,
  confidence: null,
  cache: { hits: 0, joins: 0, misses: 0, hitRate: null },
  errorRate: null,
};
