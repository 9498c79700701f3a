import { metadataFields } from "@millrace/shared/predictions/metadata.js";
import { type PredictionView, predictionJson, type StoredResult } from "@millrace/shared/predictions/prediction.js";
import type { CacheOutcome, Counted } from "@millrace/shared/predictions/statistics.js";
import type { StatisticsTally } from "@millrace/shared/predictions/statistics-tally.js";
import { dropBlob } from "@millrace/shared/redis/blob.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { acceptCached } from "@millrace/shared/scripts/predictions/accept-cached.js";
import type { Accept } from "@millrace/shared/scripts/queue/accept.js";
import { decodeReplayed } from "@millrace/shared/scripts/queue/accept-outcome.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { logTogether } from "@millrace/shared/service/log.js";
import { tensorsText } from "@millrace/shared/tensors/packed-json.js";
import { unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { queueFull } from "../admission/queue-capacity.js";
import { keepInput } from "./keep-input.js";
import { type LookUpDependencies, lookUpPrediction } from "./look-up-prediction.js";
import type { Waiter } from "./notices.js";
import {
  type PrepareDependencies,
  type PreparedSubmission,
  prepareSubmission,
  type SubmitRequest,
} from "./prepare-submission.js";
import { usedForAnother } from "./submission.js";

export interface SubmitDependencies extends LookUpDependencies, PrepareDependencies {
  tally: StatisticsTally;
  accept: Accept;
  /** The connection that acceptances go over: a large input must go over the same. */
  writes: RedisClient;
  logAccepted(fields: Record<string, unknown>): void;
}

export interface Submitted {
  id: string;
  /** The prediction as it stands now, as JSON text. */
  json: string;
  final: boolean;
  /** Of one that is final: what is kept of it. */
  result?: StoredResult | undefined;
  cached: boolean;
  replayed: boolean;
  /** It was joined to an identical one. */
  joined: boolean;
  /** Listens for the end since before the job existed, so that no notice is missed; null for who need not wait. */
  waiter: Waiter | null;
}

/** Checks, packs and accepts one prediction, joins it to an identical one or answers it from the cache. */
export async function submitPrediction(deps: SubmitDependencies, request: SubmitRequest): Promise<Submitted> {
  const prepared = await prepareSubmission(deps, request);
  const { dedup, followerJson, idempotency, model, pack, rows, versionName } = prepared;
  const { owner, requestId, retry, submission } = request;
  const nowMs = deps.clock.now();
  const id = newId(model.keys.tag);
  const { delay_ms: delayMs, expires_in_ms: expiresInMs, priority } = submission;
  const expiresAtMs = expiresInMs === 0 ? null : nowMs + expiresInMs;
  const kept = await keepInput(deps.writes, model.keys, id, pack ?? (retry as NonNullable<typeof retry>));
  const view = newView(prepared, request, id, nowMs);
  const dataJson = JSON.stringify({ ...jobData(prepared, request, expiresAtMs), ...kept.fields });
  const waiter = request.waitMs > 0 ? deps.notices.wait(id, request.waitMs, expiresAtMs) : null;
  let keepWaiter = false;
  try {
    const outcome = await deps.accept(model.keys, {
      id,
      owner,
      dataJson,
      delayMs,
      submittedMs: nowMs,
      expiresAtMs,
      priority,
      watcher: waiter === null ? null : deps.notices.apiId,
      dedup,
      idempotency,
      follower: followerJson === null ? null : { json: followerJson, wantsStart: wantsStart(submission) },
      pieces: kept.blob?.pieces ?? 0,
      blobBytes: kept.fields.b ?? 0,
      rows,
    });
    // Where it is not known whether it was accepted, the blob goes by itself.
    if (kept.blob !== undefined && outcome.kind !== "queued") {
      await kept.blob.written;
      await dropBlob(deps.redis, model.keys, id);
    }
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
      case "cached":
        return await answerCached(deps, prepared, request, view, outcome.outputJson);
      case "joined":
        logTogether(deps.log, "prediction joined")({ ...line, prediction_id: outcome.id });
        return await existingPrediction(deps, owner, { id: outcome.id, joined: true }, false);
      case "replayed":
        return await existingPrediction(deps, owner, outcome, true);
      case "mismatch":
        throw usedForAnother();
      case "gone":
        throw new ServiceError("redis_unavailable", "Redis was too slow for this input. Try again.", {
          retryAfterSeconds: 5,
        });
      default:
        throw queueFull(outcome);
    }
  } finally {
    if (!keepWaiter) waiter?.close();
  }
}

/** The prediction at its submission. */
function newView(prepared: PreparedSubmission, request: SubmitRequest, id: string, nowMs: number): PredictionView {
  return {
    id,
    model: prepared.model.name,
    version: prepared.versionName,
    status: request.submission.delay_ms > 0 ? "scheduled" : "queued",
    outputJson: null,
    error: null,
    createdAt: nowMs,
    startedAt: null,
    finishedAt: null,
    attempts: 0,
    cached: false,
    deduplicated: false,
    metadata: request.metadata,
    retryOf: request.retry?.of,
    queuePosition: null,
    modelDigest: prepared.modelDigest,
    timings: null,
  };
}

/** The data of its job, without the input. */
const jobData = (prepared: PreparedSubmission, request: SubmitRequest, expiresAtMs: number | null) => ({
  v: 1,
  o: request.owner,
  ver: prepared.versionName,
  e: expiresAtMs ?? undefined,
  ...metadataFields(request.metadata),
  d: prepared.dedup ?? undefined,
  s: wantsStart(request.submission) ? 1 : undefined,
  r: request.requestId,
  tp: request.traceparent,
  ro: request.retry?.of,
  f: prepared.form,
  n: prepared.rows > 1 ? prepared.rows : undefined,
});

const wantsStart = ({ webhook }: SubmitRequest["submission"]): boolean =>
  webhook?.events.includes("prediction.started") ?? false;

/** Keeps a prediction that ends at once, with the cached output: base64 of packed tensors, or JSON text. */
async function answerCached(
  deps: SubmitDependencies,
  { followerJson, form, idempotency, model, versionName }: PreparedSubmission,
  { owner, requestId, tensors }: SubmitRequest,
  view: PredictionView,
  output: string,
): Promise<Submitted> {
  const { createdAt: nowMs, id } = view;
  const outputJson = tensors === undefined ? output : packedOutputJson(output);
  const json = predictionJson({ ...view, status: "succeeded", outputJson, finishedAt: nowMs, cached: true });
  const result: StoredResult = { owner, status: "succeeded", json };
  if (tensors !== undefined) result.tensors = { pack: output };
  if (form !== undefined) result.form = form;
  const { resultTtlSeconds } = deps;
  const acceptance = { id, result, nowMs, resultTtlSeconds, idempotency, followerJson };
  const kept = await deps.confirmed(model.keys, (redis) => acceptCached(redis, model.keys, acceptance, deps.onStored));
  if (kept.kind === "mismatch") throw usedForAnother();
  if (kept.kind === "replayed") return await existingPrediction(deps, owner, decodeReplayed(kept.id), true);
  const tookMs = Math.max(0, deps.clock.now() - nowMs);
  deps.tally.count(model.keys, versionName, "success", tookMs);
  deps.tally.count(model.keys, versionName, "cache_hit", tookMs);
  const line = { request_id: requestId, model: model.name };
  logTogether(deps.log, "prediction answered from the cache")({ ...line, prediction_id: id });
  return { id, json, final: true, result, cached: true, replayed: false, joined: false, waiter: null };
}

/** A prediction that exists already, as the answer to a submission that led to it. */
async function existingPrediction(
  deps: LookUpDependencies,
  owner: string,
  { id, joined }: { id: string; joined: boolean },
  replayed: boolean,
): Promise<Submitted> {
  const { final, json, result } = await lookUpPrediction(deps, owner, id);
  const { cached } = JSON.parse(json) as { cached: boolean };
  return { id, json: joined ? markJoined(json) : json, final, result, cached, replayed, joined, waiter: null };
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

const packedOutputJson = (base64: string): string =>
  [...tensorsText(unpackTensors(Buffer.from(base64, "base64")))].join("");
