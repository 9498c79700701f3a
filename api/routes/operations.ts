import type { RedisFacts } from "@millrace/shared/check-redis.js";
import type { RedisClient } from "@millrace/shared/connect-redis.js";
import { manifestJsonSchema } from "@millrace/shared/manifest.js";
import { Router } from "express";
import type { ApiMetrics } from "../metrics.js";
import type { ModelDirectory } from "../model-directory.js";
import { sendJson } from "../request-context.js";
import { resource } from "../resource.js";

const probeEveryMs = 500;

const promises: Record<RedisFacts["durability"], string> = {
  fsync: "an accepted prediction is on disk before it is acknowledged",
  everysec: "an accepted prediction is on disk within a second; a power cut loses the last second",
  none: "nothing is kept on disk: when Redis dies, accepted predictions are lost",
  unknown: "Redis does not tell how it keeps data",
};

/** `/health`, `/ready`, `/metrics`, `/schemas/model.json`: all that needs no key. */
export function operationRoutes(deps: {
  redis: RedisClient;
  probeKey: string;
  facts: RedisFacts;
  directory: ModelDirectory;
  metrics: ApiMetrics;
  stopping(): boolean;
}): Router {
  const router = Router();
  const startedAt = Date.now();
  let probed: { at: number; writable: Promise<boolean> } | null = null;

  /** Whether Redis takes writes, asked twice a second at the most however often readiness is. */
  const isWritable = (): Promise<boolean> => {
    if (probed === null || Date.now() - probed.at > probeEveryMs) {
      const writable = deps.redis.set(deps.probeKey, "1", "PX", 1000).then(
        () => true,
        () => false,
      );
      probed = { at: Date.now(), writable };
    }
    return probed.writable;
  };

  resource(router, "/health", {
    get: [
      (_request, response) => {
        const available = deps.directory.all().filter((model) => model.workers.size > 0);
        const body = {
          status: "healthy",
          models_loaded: available.length,
          available_models: available.map((model) => model.name),
          uptime_seconds: Math.floor((Date.now() - startedAt) / 1000),
        };
        sendJson(response, 200, JSON.stringify(body));
      },
    ],
  });
  resource(router, "/ready", {
    get: [
      async (_request, response) => {
        const writable = await isWritable();
        const ready = writable && !deps.stopping();
        const { durability, warnings } = deps.facts;
        if (!ready) response.setHeader("Retry-After", "1");
        const body = {
          status: ready ? "ready" : "not_ready",
          redis: writable ? "writable" : "unavailable",
          stopping: deps.stopping(),
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
      async (_request, response) => {
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
