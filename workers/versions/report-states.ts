import { beatEveryMs, beatTtlMs } from "@millrace/shared/models/announcement.js";
import {
  type ModelRefusal,
  orderKeptSeconds,
  orderSchema,
  type VersionReport,
} from "@millrace/shared/models/model-order.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { execMulti } from "@millrace/shared/redis/exec-multi.js";
import { modelKeys, orderKey, ordersChannel, workersKey } from "@millrace/shared/redis/keys.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { VersionKeeper, VersionState } from "./version-keeper.js";

export interface StateReports {
  /** Reports that this worker has ended. May be called twice. */
  close(): Promise<void>;
}

/**
 * Writes heartbeats and refusals to Redis, and carries out orders to rescan the folder. A lost order costs a second or
 * two, since the folder is rescanned anyway.
 */
export async function reportStates(options: {
  redis: RedisClient;
  subscriber: RedisClient;
  keyPrefix: string;
  workerId: string;
  keeper: VersionKeeper;
  log: Logger;
}): Promise<StateReports> {
  const { keeper, keyPrefix, log, redis, subscriber, workerId } = options;
  /** The last written refusals: refusal → key. */
  let told = new Map<string, string>();

  const beat = async () => {
    try {
      const now = Date.now();
      await redis.zadd(workersKey(keyPrefix), now + beatTtlMs, workerId);
      await redis.zremrangebyscore(workersKey(keyPrefix), "-inf", now - 60_000);
      const telling = new Map<string, string>();
      for (const { model, reason, state, version } of keeper.states()) {
        if (state !== "refused") continue;
        const refusal: ModelRefusal = { worker: workerId, version, reason: reason ?? "" };
        telling.set(JSON.stringify(refusal), modelKeys(keyPrefix, model).refusals);
      }
      for (const [text, key] of told) if (!telling.has(text)) await redis.zrem(key, text);
      for (const [text, key] of telling) await redis.zadd(key, now + beatTtlMs, text);
      for (const key of new Set(telling.values())) await redis.zremrangebyscore(key, "-inf", now);
      told = telling;
    } catch (error) {
      log.warn("heartbeat failed", { error });
    }
  };

  const carryOut = async (text: string) => {
    try {
      const { id, model } = orderSchema.parse(JSON.parse(text));
      await keeper.scan(true);
      await beat();
      const key = orderKey(keyPrefix, id);
      const report = JSON.stringify(keeper.states().filter(ofModel(model)).map(reportOf));
      await execMulti(redis.multi().hset(key, workerId, report).expire(key, orderKeptSeconds));
    } catch (error) {
      log.error("rescan order failed", { error });
    }
  };

  const orders = ordersChannel(keyPrefix);
  subscriber.on("message", (channel: string, text: string) => {
    if (channel === orders) void carryOut(text);
  });
  await subscriber.subscribe(orders);
  await beat();
  const beats = setInterval(beat, beatEveryMs);
  return {
    async close() {
      clearInterval(beats);
      await redis.zrem(workersKey(keyPrefix), workerId);
    },
  };
}

const ofModel = (name: string) => (state: VersionState) => state.model === name;

const reportOf = ({ digest, reason, state, version }: VersionState): VersionReport => ({
  version,
  state,
  digest,
  reason,
});
