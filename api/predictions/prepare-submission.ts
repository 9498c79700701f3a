import { cacheTtlSeconds } from "@millrace/shared/models/manifest.js";
import { canonicalJson } from "@millrace/shared/predictions/canonical-json.js";
import type { ResponseForm } from "@millrace/shared/predictions/response-form.js";
import { largestInlineBytes } from "@millrace/shared/redis/blob.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { digestInTurns, digestOf } from "@millrace/shared/redis/digest.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { assertCapacityFor } from "../admission/new-work.js";
import type { OwnerStorage } from "../admission/owner-storage.js";
import type { RedisMemory } from "../admission/redis-memory.js";
import type { KnownModel, KnownVersion, ModelDirectory } from "../models/model-directory.js";
import { unknownModel } from "../models/unknown-model.js";
import type { ApiMetrics } from "../monitoring/metrics.js";
import { stickyKeyOf, versionFor } from "./choose-version.js";
import { type Submission, submissionHashes } from "./submission.js";
import { type FollowerDependencies, followerOf } from "./webhook-follower.js";

export interface PrepareDependencies extends FollowerDependencies {
  redis: RedisClient;
  directory: ModelDirectory;
  metrics: ApiMetrics;
  memory: RedisMemory;
  storage: OwnerStorage;
  clock: Clock;
}

export interface SubmitRequest {
  model: string;
  owner: string;
  submission: Submission;
  /** The submission's metadata as JSON text, as the caller wrote it. */
  metadata?: string | undefined;
  /** The caller's wait for the end, in ms; 0: none. */
  waitMs: number;
  requestId: string;
  traceparent: string | undefined;
  idempotencyKey: string | null;
  /** Counts the rows of the input beyond the first. Rejects with `rate_limited`. */
  takeRows?: ((rows: number) => Promise<void>) | undefined;
  /** Where the input is in the body that complaints point into; default `/input`. */
  inputPointer?: string;
  /** The input packed already, of a prediction that this one is a retry of; `bytes` where it is a blob. */
  retry?: { of: string; input: string; bytes?: number | undefined; rows: number; form?: ResponseForm | undefined };
  /** Tensors, in place of the submission's input. */
  tensors?: SubmittedTensors;
}

/** An input that came as tensors. */
export interface SubmittedTensors {
  /** The input as a pack that wants its output as one. Throws `invalid_input` where the version does not take it. */
  pack(version: KnownVersion): Buffer;
  rows: number;
  /**
   * The request as it came, and what it says besides the elements of its tensors: what the idempotency key is held
   * against.
   */
  body: Uint8Array;
  said: unknown;
  /** The requested form of an answer that is fetched later. */
  form?: ResponseForm | undefined;
}

/** A submission that is found good, with all that accepting it depends on. */
export interface PreparedSubmission {
  model: KnownModel;
  versionName: string;
  modelDigest: string;
  /** The packed input; null for a retry, whose input is in Redis. */
  pack: Buffer | null;
  rows: number;
  /** The requested form of an answer that is fetched later. */
  form: ResponseForm | undefined;
  /** Digest that identical submissions share; null where none is to be joined. */
  dedup: string | null;
  idempotency: { key: string; bodyHash: string; sortedHash?: string } | null;
  followerJson: string | null;
}

/**
 * Finds model and version, packs the input and says whether there is room for it. Throws `model_not_found`,
 * `version_not_found`, `invalid_input`, what is wrong with the webhook, and what `assertCapacityFor` throws.
 */
export async function prepareSubmission(
  deps: PrepareDependencies,
  request: SubmitRequest,
): Promise<PreparedSubmission> {
  const { idempotencyKey, owner, retry, submission, tensors } = request;
  const model = await deps.directory.find(request.model);
  if (model === null) throw unknownModel(request.model, deps.directory.refused());
  const stickyKey = () => stickyKeyOf(owner, idempotencyKey, tensors === undefined ? submission.input : tensors.body);
  const { name: versionName, version } = await versionFor(deps.directory, model, submission.version, stickyKey);
  const packed = retry === undefined ? packInput(deps.metrics, model, version, request) : null;
  const pack = packed?.pack ?? null;
  const rows = packed?.rows ?? retry?.rows ?? 1;
  if (rows > 1) await request.takeRows?.(rows - 1);
  const followerJson = await followerOf(deps, model, owner, submission.webhook);
  const form = tensors?.form ?? retry?.form;
  const dedup = pack === null ? null : await dedupOf(request, versionName, version, form, pack);
  const idempotency =
    idempotencyKey === null ? null : { key: idempotencyKey, ...(await bodyHashes(request, pack ?? Buffer.alloc(0))) };
  await assertCapacityFor(deps, model, versionName, { owner, idempotencyKey, dedup });
  const modelDigest = version.announcement.digest;
  return { model, versionName, modelDigest, pack, rows, form, dedup, idempotency, followerJson };
}

/** Changes with a release that answers otherwise, so that what an earlier one has kept is not given again. */
const answersOf = "answers-2";

/** Digest that identical submissions share; null where each is to be computed. */
async function dedupOf(
  { owner, submission }: SubmitRequest,
  versionName: string,
  { announcement: { drawsNumbers = false, manifest }, fingerprint }: KnownVersion,
  form: ResponseForm | undefined,
  pack: Buffer,
): Promise<string | null> {
  // Where each run draws its own numbers, no answer stands for another, unless the author has said for how long.
  const mayShare = !drawsNumbers || cacheTtlSeconds(manifest, drawsNumbers) > 0;
  if (!submission.cache || !mayShare) return null;
  const { delay_ms: delayMs, expires_in_ms: expiresInMs, priority } = submission;
  const kind = [answersOf, owner, versionName, fingerprint, delayMs, expiresInMs, priority];
  if (form) kind.push(JSON.stringify(form));
  const hash = pack.length > largestInlineBytes ? digestInTurns : digestOf;
  return await hash(kind.join("|"), pack);
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

/** Hashes of the body that the idempotency key is compared with. */
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
