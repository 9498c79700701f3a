import type { RedisClient } from "@millrace/shared/connect-redis.js";
import { ServiceError } from "@millrace/shared/errors.js";
import { newPredictionId } from "@millrace/shared/keys.js";
import type { Logger } from "@millrace/shared/log.js";
import { predictionJson } from "@millrace/shared/prediction.js";
import { acceptPrediction } from "@millrace/shared/scripts/accept.js";
import type { ApiMetrics } from "./metrics.js";
import type { KnownModel, KnownVersion, ModelDirectory } from "./model-directory.js";
import type { Notices, Waiter } from "./notices.js";
import { parseSubmission } from "./submission.js";

export interface SubmitDependencies {
  redis: RedisClient;
  directory: ModelDirectory;
  notices: Notices;
  metrics: ApiMetrics;
  log: Logger;
  maxQueueDepth: number;
  resultTtlSeconds: number;
}

export interface SubmitRequest {
  model: string;
  owner: string;
  body: unknown;
  /** How long the caller will wait for the end, in ms; 0: not at all. */
  waitMs: number;
  requestId: string;
  traceparent: string | undefined;
}

export interface Submitted {
  id: string;
  /** The prediction as it stands now, as JSON text. */
  json: string;
  /** Listens for the end since before the job existed, so that no notice is missed; null for who does not wait. */
  waiter: Waiter | null;
}

/** Checks, packs and accepts one prediction. Throws a ServiceError for what is wrong with it. */
export async function submitPrediction(deps: SubmitDependencies, request: SubmitRequest): Promise<Submitted> {
  const model = await deps.directory.find(request.model);
  if (model === null) throw new ServiceError("model_not_found", "no worker has ever announced this model");
  const submission = parseSubmission(request.body);
  const versionName = submission.version ?? model.defaultVersion;
  const version = model.versions.get(versionName);
  if (version === undefined) throw new ServiceError("version_not_found", `the model has no version ${versionName}`);
  const pack = packInput(deps.metrics, model, version, submission.input);

  const nowMs = Date.now();
  const id = newPredictionId(model.keys.tag);
  const { cache: _cache, delay_ms: delayMs, expires_in_ms: expiresInMs, metadata, priority } = submission;
  const data = {
    v: 1,
    o: request.owner,
    ver: versionName,
    e: expiresInMs === 0 ? undefined : nowMs + expiresInMs,
    m: metadata,
    r: request.requestId,
    tp: request.traceparent,
    x: pack.toString("base64"),
  };
  const waiter = request.waitMs > 0 ? deps.notices.wait(id, request.waitMs) : null;
  try {
    const outcome = await acceptPrediction(deps.redis, model.keys, {
      id,
      owner: request.owner,
      dataJson: JSON.stringify(data),
      nowMs,
      delayMs,
      priority,
      maxDepth: deps.maxQueueDepth,
      watcher: waiter === null ? null : { apiId: deps.notices.apiId, forMs: request.waitMs + 5000 },
      resultTtlMs: deps.resultTtlSeconds * 1000,
    });
    if (!outcome.accepted) {
      throw new ServiceError("queue_full", `${outcome.depth} predictions of this model wait already`, {
        retryAfterSeconds: 5,
      });
    }
    deps.log.info("prediction accepted", { request_id: request.requestId, prediction_id: id, model: model.name });
    const json = predictionJson({
      id,
      model: model.name,
      version: versionName,
      status: delayMs > 0 ? "scheduled" : "queued",
      outputJson: null,
      error: null,
      createdAt: nowMs,
      startedAt: null,
      finishedAt: null,
      attempts: 0,
      cached: false,
      deduplicated: false,
      metadata,
      retryOf: undefined,
      queuePosition: delayMs > 0 ? null : outcome.position,
      modelDigest: version.announcement.digest,
      timings: null,
    });
    return { id, json, waiter };
  } catch (fault) {
    waiter?.close();
    throw fault;
  }
}

function packInput(metrics: ApiMetrics, model: KnownModel, version: KnownVersion, input: unknown): Buffer {
  const packed = version.pack(input);
  if ("pack" in packed) return packed.pack;
  metrics.invalidInput.inc({ model: model.name, code: "invalid_input" });
  const complaints = packed.complaints.map(({ detail, pointer }) => ({ detail, pointer: `/input${pointer}` }));
  const [first] = complaints;
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : "";
  throw new ServiceError("invalid_input", `${first?.detail}${more}`, { complaints });
}
