import { encodeResult, type StoredResult } from "../../predictions/prediction.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { deliverLua, webhookBody } from "../deliveries.js";
import { bullAddLua } from "../queue/bullmq-add.js";
import { type Idempotency, idempotencyHashes, idempotencyLua } from "../queue/idempotency.js";
import { runScript, type Script } from "../queue/script.js";

/**
 * A prediction that is answered from the cache comes into being final: result, owner's index, idempotency and webhook
 * in one step, as for any other.
 *
 * KEYS: result, owned, idempotency. ARGV: id, stored result, TTL (s), now (ms), key base, webhook queue prefix, follower
 * or "", webhook body, hashes of the body or "".
 */
const lua = `
${bullAddLua}
${deliverLua}
${idempotencyLua}
local id, now, base = ARGV[1], tonumber(ARGV[4]), ARGV[5]
if ARGV[9] ~= '' then
  local same, target = sentBefore(KEYS[3], ARGV[9])
  if same ~= nil then return same and {'replayed', target} or {'mismatch', ''} end
  keepSent(KEYS[3], ARGV[9], id)
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('ZADD', KEYS[2], now, id)
redis.call('PEXPIRE', KEYS[2], ARGV[3] * 1000 + 604800000)
if ARGV[7] ~= '' then
  deliver(base, ARGV[6], id, {'f' .. ARGV[7]}, 'prediction.completed', ARGV[8], now)
end
return {'accepted', id}
`;

const script: Script = { name: "millraceAcceptCached", lua };

export interface CachedAcceptance {
  id: string;
  result: StoredResult;
  nowMs: number;
  resultTtlSeconds: number;
  idempotency: Idempotency | null;
  followerJson: string | null;
}

/** Keeps a prediction that was answered from the cache. */
export async function acceptCached(
  redis: RedisClient,
  keys: ModelKeys,
  acceptance: CachedAcceptance,
): Promise<{ kind: "accepted" | "replayed" | "mismatch"; id: string }> {
  const { followerJson, id, idempotency, nowMs, result, resultTtlSeconds } = acceptance;
  const [kind, target] = (await runScript(
    redis,
    script,
    [keys.result(id), keys.owned(result.owner), keys.idempotency(result.owner, idempotency?.key ?? "")],
    [
      id,
      encodeResult(result),
      resultTtlSeconds,
      nowMs,
      keys.base,
      keys.webhookQueue,
      followerJson ?? "",
      followerJson === null ? "" : webhookBody("prediction.completed", nowMs, result.json),
      idempotency === null ? "" : idempotencyHashes(idempotency),
    ],
  )) as ["accepted" | "replayed" | "mismatch", string];
  return { kind, id: target };
}
