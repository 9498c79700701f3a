import { webhookBody } from "../../predictions/delivery.js";
import { encodeResult, type StoredResult } from "../../predictions/prediction.js";
import { type OnStored, resultOverheadBytes } from "../../predictions/storage-counter.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, number, optional, text } from "../lua/fields.js";
import { type Idempotency, idempotencyHashes } from "../queue/idempotency.js";

/**
 * Creates a prediction answered from the cache, already final: result, owner's index, idempotency and webhook in one
 * step, as for any other.
 */
const script = defineScript({
  name: "millraceAcceptCached",
  file: "predictions/accept-cached",
  keys: {
    result: text("The prediction's result."),
    owned: text("The owner's predictions."),
    idempotency: text("The owner's idempotency key, with hash of the body and outcome."),
  },
  fields: {
    id: text("The prediction's id."),
    result: text("Its result as it is stored."),
    resultTtlSeconds: number("The result time."),
    nowMs: number("Time of acceptance."),
    base: text("Prefix of the model's own keys."),
    webhookQueue: text("Prefix of the keys of the model's queue of deliveries."),
    follower: optional(text("The follower to call, as JSON.")),
    webhookBody: optional(text("The body to send.")),
    bodyHashes: optional(text("Hashes of the body, with an idempotency key.")),
  },
  answer: answers<[kind: "accepted" | "replayed" | "mismatch", id: string]>(
    "What became of it, and its id or the id of the one before.",
  ),
});

export interface CachedAcceptance {
  id: string;
  result: StoredResult;
  nowMs: number;
  resultTtlSeconds: number;
  idempotency: Idempotency | null;
  followerJson: string | null;
}

/** Stores a prediction answered from the cache. */
export async function acceptCached(
  redis: RedisClient,
  keys: ModelKeys,
  acceptance: CachedAcceptance,
  onStored: OnStored,
): Promise<{ kind: "accepted" | "replayed" | "mismatch"; id: string }> {
  const { followerJson, id, idempotency, nowMs, result, resultTtlSeconds } = acceptance;
  const [kind, target] = await script.run(redis, {
    keys: {
      result: keys.result(id),
      owned: keys.owned(result.owner),
      idempotency: keys.idempotency(result.owner, idempotency?.key ?? ""),
    },
    fields: {
      id,
      result: encodeResult(result),
      resultTtlSeconds,
      nowMs,
      base: keys.base,
      webhookQueue: keys.webhookQueue,
      follower: followerJson,
      webhookBody: followerJson === null ? null : webhookBody("prediction.completed", nowMs, result.json),
      bodyHashes: idempotency === null ? null : idempotencyHashes(idempotency),
    },
  });
  if (kind === "accepted") onStored(result.owner, resultOverheadBytes + result.json.length);
  return { kind, id: target };
}
