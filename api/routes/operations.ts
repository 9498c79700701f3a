import { opensMetrics } from "@millrace/shared/access/metrics-key.js";
import { manifestJsonSchema } from "@millrace/shared/models/manifest.js";
import type { RedisFacts } from "@millrace/shared/redis/check-redis.js";
import type { RedisState } from "@millrace/shared/redis/confirm-writes.js";
import type { StoreMarker } from "@millrace/shared/redis/store-marker.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { fitsGlob } from "@millrace/shared/service/glob.js";
import { type RequestHandler, Router } from "express";
import type { Audit } from "../access/audit.js";
import { type Caller, modelsOf } from "../access/authenticate.js";
import type { LoopWatch } from "../admission/loop-watch.js";
import type { RedisMemory } from "../admission/redis-memory.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import type { ModelDirectory } from "../models/model-directory.js";
import type { ApiMetrics } from "../monitoring/metrics.js";

const promises: Record<RedisFacts["durability"], string> = {
  replica:
    "an accepted prediction is in the memory of the master and of a replica before it is acknowledged; it survives " +
    "the loss of either, and a failover to a replica that has it; this is no consensus",
  fsync: "an accepted prediction is on disk before it is acknowledged; it survives the death of Redis and a power cut",
  everysec:
    "an accepted prediction is on disk within a second, or two when the disk is busy; a power cut loses what is not " +
    "there yet",
  none: "nothing is kept on disk: when Redis dies, accepted predictions are lost",
  unknown: "Redis does not tell how it keeps data",
};

/**
 * `/health`, `/ready`, `/metrics`, `/schemas/model.json`: all that needs no key. The names of the models are told to
 * keys that may read, and metrics to METRICS_KEY alone where there is one.
 */
export function operationRoutes(deps: {
  redisState(): Promise<RedisState>;
  facts: RedisFacts;
  marker: StoreMarker;
  directory: ModelDirectory;
  memory: RedisMemory;
  loop: LoopWatch;
  metrics: ApiMetrics;
  metricsKey: string | undefined;
  audit: Audit;
  mayTellMore: RequestHandler;
  stopping(): boolean;
}): Router {
  const router = Router();
  const startedAt = performance.now();
  const turningAway = () => {
    const late = "the event loop of this process lags by over a second: new work gets 503 until it has caught up";
    return [deps.memory.complaint, deps.loop.isDrowning() ? late : null].filter((reason) => reason !== null);
  };

  resource(router, "/health", {
    get: [
      deps.mayTellMore,
      (_request, response) => {
        const caller: Caller | undefined = response.locals.caller;
        const globs = caller === undefined ? [] : modelsOf(caller, "read");
        const available = deps.directory.all().filter((model) => model.workers.size > 0);
        const body = {
          status: "healthy",
          models_loaded: available.length,
          ...(caller !== undefined && {
            available_models: available
              .map(({ name }) => name)
              .filter((name) => globs === null || fitsGlob(name, globs)),
          }),
          uptime_seconds: Math.floor((performance.now() - startedAt) / 1000),
        };
        sendJson(response, 200, JSON.stringify(body));
      },
    ],
  });
  resource(router, "/ready", {
    get: [
      async (_request, response) => {
        const redis = await deps.redisState();
        const { complaint } = deps.marker;
        const ready = redis === "writable" && complaint === null && !deps.stopping();
        const { durability, warnings } = deps.facts;
        if (!ready) response.setHeader("Retry-After", "1");
        const body = {
          status: ready ? "ready" : "not_ready",
          redis,
          store_swapped: complaint,
          stopping: deps.stopping(),
          // Who only reads, cancels or drains is served all the same, so it is ready.
          turning_away: turningAway(),
          durability,
          promise: promises[durability],
          warnings,
        };
        sendJson(response, ready ? 200 : 503, JSON.stringify(body));
      },
    ],
  });
  resource(router, "/metrics", {
    get: [
      async (request, response) => {
        if (!opensMetrics(request.headers, deps.metricsKey)) {
          deps.audit.refused(request, response, "no key for metrics");
          throw new ServiceError("unauthenticated", "Send METRICS_KEY as Authorization: Bearer KEY or X-API-Key: KEY.");
        }
        response.setHeader("Content-Type", deps.metrics.register.contentType);
        response.end(await deps.metrics.register.metrics());
      },
    ],
  });
  resource(router, "/schemas/model.json", {
    get: [(_request, response) => sendJson(response, 200, JSON.stringify(manifestJsonSchema()))],
  });
  return router;
}
