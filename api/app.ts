import type { WebhookAllowances } from "@millrace/shared/access/webhook-target.js";
import type { StatisticsCounter } from "@millrace/shared/predictions/statistics.js";
import type { StatisticsTally } from "@millrace/shared/predictions/statistics-tally.js";
import type { OnStored } from "@millrace/shared/predictions/storage-counter.js";
import type { RedisFacts } from "@millrace/shared/redis/check-redis.js";
import { type ConfirmedWrite, createWriteProbe } from "@millrace/shared/redis/confirm-writes.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { readyBase } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { StoreMarker } from "@millrace/shared/redis/store-marker.js";
import type { Accept, AcceptSettings } from "@millrace/shared/scripts/queue/accept.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type Logger, logTogether } from "@millrace/shared/service/log.js";
import type { Tracing } from "@millrace/shared/service/tracing.js";
import express, { type Express, type RequestHandler } from "express";
import { createAudit } from "./access/audit.js";
import type { KeyRing } from "./access/key-ring.js";
import type { RateLimits } from "./access/rate-limits.js";
import { accessRules } from "./access-rules.js";
import type { LoopWatch } from "./admission/loop-watch.js";
import type { OwnerStorage } from "./admission/owner-storage.js";
import type { RedisMemory } from "./admission/redis-memory.js";
import { bodyDeadline } from "./http/body-deadline.js";
import { strictRequest } from "./http/harden-server.js";
import { problemHandler } from "./http/problem.js";
import { requestContext } from "./http/request-context.js";
import { answerHeaders } from "./http/security-headers.js";
import { traceRequests } from "./http/trace-requests.js";
import type { ModelDirectory } from "./models/model-directory.js";
import type { ApiMetrics } from "./monitoring/metrics.js";
import type { Notices } from "./predictions/notices.js";
import { batchesRoutes } from "./routes/batches.js";
import { deliveryRoutes } from "./routes/deliveries.js";
import { dropInRoutes } from "./routes/drop-in.js";
import { failureRoutes } from "./routes/failures.js";
import { inferRoutes } from "./routes/infer.js";
import { keyRoutes } from "./routes/keys.js";
import { modelChangeRoutes } from "./routes/model-changes.js";
import { modelRoutes } from "./routes/models.js";
import { monitoringRoutes } from "./routes/monitoring.js";
import { oneBatchRoutes } from "./routes/one-batch.js";
import { onePredictionRoutes } from "./routes/one-prediction.js";
import { operationRoutes } from "./routes/operations.js";
import { pageRoutes } from "./routes/pages.js";
import { predictionsRoutes } from "./routes/predictions.js";
import { queueRoutes } from "./routes/queues.js";
import { redriveRoutes } from "./routes/redrives.js";
import { repositoryRoutes } from "./routes/repository.js";
import { tensorModelRoutes } from "./routes/tensor-models.js";

export interface AppDependencies {
  redis: RedisClient;
  /** The clock of all times that are stored or shown. */
  clock: Clock;
  /** Tells whether the store is the known one. */
  marker: StoreMarker;
  facts: RedisFacts;
  directory: ModelDirectory;
  notices: Notices;
  metrics: ApiMetrics;
  tally: StatisticsTally;
  statistics: StatisticsCounter;
  log: Logger;
  keyPrefix: string;
  /** Of this release. */
  version: string;
  keyRing: KeyRing;
  limits: RateLimits | null;
  /** Whether reads of an owner's own data are put on record, too. */
  auditReads: boolean;
  /** The key that `/metrics` wants; undefined: none. */
  metricsKey: string | undefined;
  /** Room of Redis for new work, and of this process for new requests. */
  memory: RedisMemory;
  storage: OwnerStorage;
  /** Told of what is stored for an owner. */
  onStored: OnStored;
  loop: LoopWatch;
  maxBodyBytes: number;
  maxBodyKeys: number;
  bodyTimeoutMs: number;
  /** Lets pages of some origins call; null: no answer has a CORS header. */
  crossOrigin: RequestHandler | null;
  /** Which proxies in front are believed about the caller's address. */
  trustProxy: number | readonly string[];
  maxBatchRows: number;
  maxBatchBytes: number;
  uploadKeepMs: number;
  maxFileBytes: number;
  maxTensorBytes: number;
  syncTimeoutMs: number;
  /** Carries out what callers are told of as done. */
  confirmed: ConfirmedWrite;
  accept: Accept;
  /** Settings of `accept`. */
  acceptSettings: AcceptSettings;
  /** The connection that acceptances go over. */
  writes: RedisClient;
  resultTtlSeconds: number;
  webhooksSigned: boolean;
  webhookAllowances: WebhookAllowances;
  tracing: Tracing | null;
  stopping(): boolean;
  /** A connection of its own for the queue page. */
  openRedis(): RedisClient;
  onClose(release: () => Promise<void>): void;
}

/** The Express application; last comes the word for all that does not exist, which is for callers with a key only. */
export function createApp(deps: AppDependencies): Express {
  const app = express();
  app.disable("x-powered-by");
  app.disable("etag");
  app.set("query parser", "simple");
  app.set("trust proxy", deps.trustProxy);
  const audit = createAudit(deps.log, { reads: deps.auditReads });
  const access = accessRules({ ...deps, audit });

  app.use(requestContext(deps.metrics));
  app.use(answerHeaders);
  app.use(strictRequest);
  app.use(bodyDeadline(deps.bodyTimeoutMs));
  if (deps.tracing !== null) app.use(traceRequests(deps.tracing));
  app.use((_request, response, next) => {
    if (deps.stopping()) response.setHeader("Connection", "close");
    next();
  });
  if (deps.crossOrigin !== null) app.use(deps.crossOrigin);
  // Set first, because clients of that protocol are to understand whatever goes wrong.
  app.use("/v2", (_request, response, next) => {
    response.locals.openInference = true;
    next();
  });
  const redisState = createWriteProbe(deps.confirmed, readyBase(deps.keyPrefix));
  const isWritable = async () => deps.marker.complaint === null && (await redisState()) === "writable";
  // What is asked most often is looked for first.
  const logAccepted = logTogether(deps.log, "prediction accepted");
  app.use(predictionsRoutes({ ...deps, ...access, logAccepted }));
  app.use(inferRoutes({ ...deps, ...access, logAccepted }));
  app.use(onePredictionRoutes({ ...deps, ...access, logAccepted }));
  app.use(batchesRoutes({ ...deps, ...access }));
  app.use(oneBatchRoutes({ ...deps, ...access }));
  app.use(operationRoutes({ ...deps, ...access, audit, redisState }));
  app.use(pageRoutes({ version: deps.version, openApi: () => openApiOf(deps.version) }));
  app.use(deliveryRoutes({ ...deps, ...access }));
  app.use(failureRoutes({ ...deps, ...access, audit }));
  app.use(redriveRoutes({ ...deps, ...access }));
  app.use(modelRoutes({ ...deps, ...access }));
  app.use(dropInRoutes({ ...deps, ...access, logAccepted }));
  app.use(tensorModelRoutes({ ...deps, ...access, isWritable }));
  app.use(repositoryRoutes({ ...deps, ...access }));
  app.use(modelChangeRoutes({ ...deps, ...access }));
  app.use(monitoringRoutes({ ...deps, mayReadModels: access.mayReadFigures }));
  app.use(keyRoutes({ ...deps, ...access, audit }));
  app.use(queueRoutes({ ...deps, ...access, audit }));
  app.use(access.mayKnow, () => {
    throw new ServiceError("not_found", "There is nothing at this path.");
  });
  app.use(problemHandler(deps.log, deps.metrics));
  return app;
}

/** Loaded when somebody first asks: the schemas of all answers take megabytes. */
async function openApiOf(version: string): Promise<Record<string, unknown>> {
  const { openApiDocument } = await import("./openapi/document.js");
  return openApiDocument(version);
}
