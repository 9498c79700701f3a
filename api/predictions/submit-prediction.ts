import { cacheTtlSeconds } from "@millrace/shared/models/manifest.js";
import { canonicalJson } from "@millrace/shared/predictions/canonical-json.js";
import { metadataFields } from "@millrace/shared/predictions/metadata.js";
import { type PredictionView, predictionJson, type StoredResult } from "@millrace/shared/predictions/prediction.js";
import type { ResponseForm } from "@millrace/shared/predictions/response-form.js";
import type { CacheOutcome, Counted } from "@millrace/shared/predictions/statistics.js";
import type { StatisticsTally } from "@millrace/shared/predictions/statistics-tally.js";
import { dropBlob, largestInlineBytes } from "@millrace/shared/redis/blob.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { digestInTurns, digestOf } from "@millrace/shared/redis/digest.js";
import { newId } from "@millrace/shared/redis/keys.js";
import { acceptCached } from "@millrace/shared/scripts/predictions/accept-cached.js";
import { decodeReplayed } from "@millrace/shared/scripts/queue/accept-outcome.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { tensorsText } from "@millrace/shared/tensors/packed-json.js";
import { unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import type { Accept } from "../admission/accept-together.js";
import { expectRoomFor } from "../admission/new-work.js";
import { queueFull } from "../admission/queue-full.js";
import type { RedisMemory } from "../admission/redis-memory.js";
import type { KnownModel, KnownVersion } from "../models/model-directory.js";
import type { ApiMetrics } from "../monitoring/metrics.js";
import { stickyKeyOf, versionFor } from "./choose-version.js";
import { keepInput } from "./keep-input.js";
import { type LookUpDependencies, lookUpPrediction } from "./look-up-prediction.js";
import type { Waiter } from "./notices.js";
import { type Submission, submissionHashes, usedForAnother } from "./submission.js";
import { type FollowerDependencies, followerOf } from "./webhook-follower.js";

export interface SubmitDependencies extends LookUpDependencies, FollowerDependencies {
  redis: RedisClient;
  metrics: ApiMetrics;
  tally: StatisticsTally;
  log: Logger;
  memory: RedisMemory;
  accept: Accept;
  /** The connection that acceptances go over: a large input must go over the same. */
  writes: RedisClient;
  logAccepted(fields: Record<string, unknown>): void;
}

export interface SubmitRequest {
  model: string;
  owner: string;
  submission: Submission;
  /** The submission's metadata as JSON text, as the caller wrote it. */
  metadata?: string | undefined;
  /** How long the caller will wait for the end, in ms; 0: not at all. */
  waitMs: number;
  requestId: string;
  traceparent: string | undefined;
  idempotencyKey: string | null;
  /** Where the input is in the body that complaints point into; `/input` unless told. */
  inputPointer?: string;
  /** The input packed already, of a prediction that this one is a retry of; `bytes` where it is a blob. */
  retry?: { of: string; input: string; bytes?: number | undefined; form?: ResponseForm | undefined };
  /** Tensors, in place of the submission's input. */
  tensors?: SubmittedTensors;
}

/** An input that came as tensors. */
export interface SubmittedTensors {
  /** The input as a pack that wants its output as one. Throws `invalid_input` where the version does not take it. */
  pack(version: KnownVersion): Buffer;
  rows: number;
  /** The request as it came, and what it says besides the elements of its tensors: what the idempotency key is held against. */
  body: Uint8Array;
  said: unknown;
  /** How the answer is wanted, for one that is fetched later. */
  form?: ResponseForm | undefined;
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
  const { owner, requestId, retry, submission } = request;
  const model = await deps.directory.find(request.model);
  if (model === null) throw new ServiceError("model_not_found", "no worker has ever announced this model");
  const stickyKey = () =>
    stickyKeyOf(owner, request.idempotencyKey, request.tensors === undefined ? submission.input : request.tensors.body);
  const { name: versionName, version } = await versionFor(deps.directory, model, submission.version, stickyKey);
  const packed = retry === undefined ? packInput(deps.metrics, model, version, request) : null;
  const pack = packed?.pack ?? null;
  const followerJson = await followerOf(deps, model, owner, submission.webhook);

  const nowMs = Date.now();
  const id = newId(model.keys.tag);
  const { delay_ms: delayMs, expires_in_ms: expiresInMs, priority } = submission;
  const { metadata } = request;
  const { announcement, fingerprint } = version;
  const { digest } = announcement;
  const form = request.tensors?.form ?? retry?.form;
  const kind = [
    answersOf,
    owner,
    versionName,
    fingerprint,
    delayMs,
    expiresInMs,
    priority,
    ...(form ? [JSON.stringify(form)] : []),
  ];
  const hash = pack !== null && pack.length > largestInlineBytes ? digestInTurns : digestOf;
  // Where each run draws its own numbers, no answer stands for another, unless the author has said for how long.
  const { drawsNumbers = false, manifest } = announcement;
  const mayShare = !drawsNumbers || cacheTtlSeconds(manifest, drawsNumbers) > 0;
  const dedup = submission.cache && mayShare && pack !== null ? await hash(kind.join("|"), pack) : null;
  const idempotency =
    request.idempotencyKey === null
      ? null
      : { key: request.idempotencyKey, ...(await bodyHashes(request, pack ?? Buffer.alloc(0))) };
  const wantsStart = submission.webhook?.events.includes("prediction.started") ?? false;
  await expectRoomFor(deps, model, versionName, { owner, idempotencyKey: request.idempotencyKey, dedup });
  const kept = await keepInput(deps.writes, model.keys, id, pack ?? (retry as NonNullable<typeof retry>));
  const dataJson = JSON.stringify({
    v: 1,
    o: owner,
    ver: versionName,
    e: expiresInMs === 0 ? undefined : nowMs + expiresInMs,
    ...metadataFields(metadata),
    d: dedup ?? undefined,
    s: wantsStart ? 1 : undefined,
    r: requestId,
    tp: request.traceparent,
    ro: retry?.of,
    f: form,
    ...kept.fields,
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
      expiresAtMs: expiresInMs === 0 ? null : nowMs + expiresInMs,
      priority,
      watcher: waiter === null ? null : deps.notices.apiId,
      dedup,
      idempotency,
      follower: followerJson === null ? null : { json: followerJson, wantsStart },
      pieces: kept.blob?.pieces ?? 0,
      blobBytes: kept.fields.b ?? 0,
      rows: packed?.rows ?? 1,
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
      case "cached": {
        const tensors = request.tensors === undefined ? undefined : { pack: outcome.outputJson };
        const outputJson = tensors === undefined ? outcome.outputJson : packedOutputJson(tensors.pack);
        const answer = { ...view, status: "succeeded", outputJson, finishedAt: nowMs } as const;
        const json = predictionJson({ ...answer, cached: true });
        const result: StoredResult = { owner, status: "succeeded", json };
        if (tensors !== undefined) result.tensors = tensors;
        if (form !== undefined) result.form = form;
        const { resultTtlSeconds } = deps;
        const acceptance = { id, result, nowMs, resultTtlSeconds, idempotency, followerJson };
        const kept = await deps.confirmed(model.keys, (redis) => acceptCached(redis, model.keys, acceptance));
        if (kept.kind === "mismatch") throw usedForAnother();
        if (kept.kind === "replayed") return await standing(deps, owner, decodeReplayed(kept.id), true);
        deps.tally.count(model.keys, versionName, "success", Date.now() - nowMs);
        deps.tally.count(model.keys, versionName, "cache_hit", Date.now() - nowMs);
        deps.log.info("prediction answered from the cache", { ...line, prediction_id: id });
        return { id, json, final: true, result, cached: true, replayed: false, joined: false, waiter: null };
      }
      case "joined":
        deps.log.info("prediction joined", { ...line, prediction_id: outcome.id });
        return await standing(deps, owner, { id: outcome.id, joined: true }, false);
      case "replayed":
        return await standing(deps, owner, outcome, true);
      case "mismatch":
        throw usedForAnother();
      case "gone":
        throw new ServiceError("redis_unavailable", "the store was too slow for this input", { retryAfterSeconds: 5 });
      default:
        throw queueFull(outcome);
    }
  } finally {
    if (!keepWaiter) waiter?.close();
  }
}

/** Changes with a release that answers otherwise, so that what an earlier one has kept is not given again. */
const answersOf = "answers-2";

/** A prediction that exists already, as the answer to a submission that led to it. */
async function standing(
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

function packInput(
  metrics: ApiMetrics,
  model: KnownModel,
  version: KnownVersion,
  { inputPointer = "/input", submission, tensors }: SubmitRequest,
): { pack: Buffer; rows: number } {
  const invalid = () => metrics.invalidInput.inc({ model: model.name, code: "invalid_input" });
  if (tensors !== undefined) {
    try {
      return { pack: tensors.pack(version), rows: tensors.rows };
    } catch (fault) {
      if (fault instanceof ServiceError && fault.code === "invalid_input") invalid();
      throw fault;
    }
  }
  const packed = version.pack(submission.input);
  if ("pack" in packed) return packed;
  invalid();
  const complaints = packed.complaints.map(({ detail, pointer }) => ({ detail, pointer: `${inputPointer}${pointer}` }));
  const [first] = complaints;
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : "";
  throw new ServiceError("invalid_input", `${first?.detail}${more}`, { complaints });
}

const packedOutputJson = (base64: string): string =>
  [...tensorsText(unpackTensors(Buffer.from(base64, "base64")))].join("");

/** What the idempotency key is held against. */
async function bodyHashes(
  { retry, submission, tensors }: SubmitRequest,
  pack: Buffer,
): Promise<{ bodyHash: string; sortedHash?: string }> {
  if (retry !== undefined) return { bodyHash: digestOf("retry", retry.of) };
  const { exact, sorted } = submissionHashes(submission);
  if (tensors === undefined) return { bodyHash: exact, sortedHash: sorted };
  const [bodyHash, sortedHash] = await Promise.all([
    digestInTurns(exact, tensors.body),
    digestInTurns(sorted, canonicalJson(tensors.said), "|", pack),
  ]);
  return { bodyHash, sortedHash };
}
