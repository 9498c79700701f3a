import type { RedisClient } from "@millrace/shared/connect-redis.js";
import { ServiceError } from "@millrace/shared/errors.js";
import { digestOf, newId } from "@millrace/shared/keys.js";
import type { Logger } from "@millrace/shared/log.js";
import { type PredictionView, predictionJson } from "@millrace/shared/prediction.js";
import { decodeReplayed } from "@millrace/shared/scripts/accept.js";
import { acceptCached } from "@millrace/shared/scripts/accept-cached.js";
import type { CacheOutcome, Counted } from "@millrace/shared/statistics.js";
import type { Accept } from "./accept-together.js";
import { stickyKeyOf, versionFor } from "./choose-version.js";
import { type LookUpDependencies, lookUpPrediction } from "./look-up-prediction.js";
import type { ApiMetrics } from "./metrics.js";
import type { KnownModel, KnownVersion } from "./model-directory.js";
import type { Waiter } from "./notices.js";
import { type Submission, submissionHash } from "./submission.js";
import { type FollowerDependencies, followerOf } from "./webhook-follower.js";

export interface SubmitDependencies extends LookUpDependencies, FollowerDependencies {
  redis: RedisClient;
  metrics: ApiMetrics;
  log: Logger;
  accept: Accept;
  logAccepted(fields: Record<string, unknown>): void;
}

export interface SubmitRequest {
  model: string;
  owner: string;
  submission: Submission;
  /** How long the caller will wait for the end, in ms; 0: not at all. */
  waitMs: number;
  requestId: string;
  traceparent: string | undefined;
  idempotencyKey: string | null;
  /** The input packed already, of a prediction that this one is a retry of. */
  retry?: { of: string; input: string };
}

export interface Submitted {
  id: string;
  /** The prediction as it stands now, as JSON text. */
  json: string;
  final: boolean;
  cached: boolean;
  replayed: boolean;
  /** It was joined to an identical one. */
  joined: boolean;
  /** Listens for the end since before the job existed, so that no notice is missed; null for who need not wait. */
  waiter: Waiter | null;
}

/** Checks, packs and accepts one prediction, joins it to an identical one or answers it from the cache. */
export async function submitPrediction(deps: SubmitDependencies, request: SubmitRequest): Promise<Submitted> {
  const { owner, requestId, retry, submission } = request;
  const model = await deps.directory.find(request.model);
  if (model === null) throw new ServiceError("model_not_found", "no worker has ever announced this model");
  const stickyKey = () => stickyKeyOf(owner, request.idempotencyKey, submission.input);
  const { name: versionName, version } = await versionFor(deps.directory, model, submission.version, stickyKey);
  const pack = retry === undefined ? packInput(deps.metrics, model, version, submission.input) : null;
  const followerJson = await followerOf(deps, model, owner, submission.webhook);

  const nowMs = Date.now();
  const id = newId(model.keys.tag);
  const { delay_ms: delayMs, expires_in_ms: expiresInMs, metadata, priority } = submission;
  const { announcement, fingerprint } = version;
  const { digest } = announcement;
  const dedup =
    submission.cache && pack !== null
      ? digestOf([owner, versionName, fingerprint, delayMs, expiresInMs, priority].join("|"), pack)
      : null;
  const idempotency =
    request.idempotencyKey === null ? null : { key: request.idempotencyKey, bodyHash: submissionHash(submission) };
  const wantsStart = submission.webhook?.events.includes("prediction.started") ?? false;
  const dataJson = JSON.stringify({
    v: 1,
    o: owner,
    ver: versionName,
    e: expiresInMs === 0 ? undefined : nowMs + expiresInMs,
    m: metadata,
    d: dedup ?? undefined,
    s: wantsStart ? 1 : undefined,
    r: requestId,
    tp: request.traceparent,
    ro: retry?.of,
    x: pack?.toString("base64") ?? retry?.input,
  });
  const view: PredictionView = {
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
    retryOf: retry?.of,
    queuePosition: null,
    modelDigest: digest,
    timings: null,
  };
  const waiter =
    request.waitMs > 0 ? deps.notices.wait(id, request.waitMs, expiresInMs === 0 ? null : nowMs + expiresInMs) : null;
  let keepWaiter = false;
  try {
    const outcome = await deps.accept(model.keys, {
      id,
      owner,
      dataJson,
      delayMs,
      priority,
      watcher: waiter === null ? null : deps.notices.apiId,
      dedup,
      idempotency,
      follower: followerJson === null ? null : { json: followerJson, wantsStart },
    });
    const line = { request_id: requestId, model: model.name };
    if (dedup !== null) {
      const found = outcome.kind === "cached" ? "hit" : outcome.kind === "joined" ? "join" : "miss";
      if (found !== "miss" || outcome.kind === "queued")
        countCache(deps, { model: model.name, owner, version: versionName }, found);
    }
    switch (outcome.kind) {
      case "queued":
        keepWaiter = true;
        deps.logAccepted({ ...line, prediction_id: id });
        return {
          id,
          json: predictionJson({ ...view, queuePosition: delayMs > 0 ? null : outcome.position }),
          final: false,
          cached: false,
          replayed: false,
          joined: false,
          waiter,
        };
      case "cached": {
        const answer = { ...view, status: "succeeded", outputJson: outcome.outputJson, finishedAt: nowMs } as const;
        const json = predictionJson({ ...answer, cached: true });
        const result = { owner, status: "succeeded", json } as const;
        const { resultTtlSeconds } = deps;
        const kept = await acceptCached(deps.redis, model.keys, {
          id,
          result,
          nowMs,
          resultTtlSeconds,
          idempotency,
          followerJson,
        });
        if (kept.kind === "mismatch") throw mismatch();
        if (kept.kind === "replayed") return await standing(deps, owner, decodeReplayed(kept.id), true);
        deps.log.info("prediction answered from the cache", { ...line, prediction_id: id });
        return { id, json, final: true, cached: true, replayed: false, joined: false, waiter: null };
      }
      case "joined":
        deps.log.info("prediction joined", { ...line, prediction_id: outcome.id });
        return await standing(deps, owner, { id: outcome.id, joined: true }, false);
      case "replayed":
        return await standing(deps, owner, outcome, true);
      case "mismatch":
        throw mismatch();
      default:
        throw new ServiceError("queue_full", `${outcome.depth} predictions of this model wait already`, {
          retryAfterSeconds: 5,
        });
    }
  } finally {
    if (!keepWaiter) waiter?.close();
  }
}

/** A prediction that exists already, as the answer to a submission that led to it. */
async function standing(
  deps: LookUpDependencies,
  owner: string,
  { id, joined }: { id: string; joined: boolean },
  replayed: boolean,
): Promise<Submitted> {
  const { final, json } = await lookUpPrediction(deps, owner, id);
  const { cached } = JSON.parse(json) as { cached: boolean };
  return { id, json: joined ? markJoined(json) : json, final, cached, replayed, joined, waiter: null };
}

/** The prediction as one that was joined to it is shown it. */
export const markJoined = (json: string): string =>
  json.replace(/"cached":(true|false),"deduplicated":false,"metadata":/, '"cached":$1,"deduplicated":true,"metadata":');

function countCache({ metrics, statistics }: SubmitDependencies, of: Counted, outcome: CacheOutcome): void {
  const { model, version } = of;
  metrics.dedup.inc({ model, outcome });
  if (outcome === "hit") metrics.cacheHits.inc({ model, version });
  if (outcome === "miss") metrics.cacheMisses.inc({ model, version });
  statistics.cache(of, outcome);
}

const mismatch = () =>
  new ServiceError("idempotency_mismatch", "this Idempotency-Key was used for another body", {
    complaints: [],
  });

function packInput(metrics: ApiMetrics, model: KnownModel, version: KnownVersion, input: unknown): Buffer {
  const packed = version.pack(input);
  if ("pack" in packed) return packed.pack;
  metrics.invalidInput.inc({ model: model.name, code: "invalid_input" });
  const complaints = packed.complaints.map(({ detail, pointer }) => ({ detail, pointer: `/input${pointer}` }));
  const [first] = complaints;
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : "";
  throw new ServiceError("invalid_input", `${first?.detail}${more}`, { complaints });
}
