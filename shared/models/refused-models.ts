import type { RedisClient } from "../redis/connect-redis.js";
import { modelKeys, refusedModelsKey } from "../redis/keys.js";
import type { Clock } from "../redis/store-clock.js";
import { beatTtlMs } from "./beat-times.js";
import { type ModelRefusal, refusalSchema } from "./model-order.js";

/** A refusal, with the name of the model's folder as it is shown: its own if it is a model's name, else escaped. */
export interface RefusedModel extends ModelRefusal {
  model: string;
}

/** The refusals of one worker, in Redis until its next beats stay away. */
export interface RefusalTeller {
  /** Tells all of the worker's refusals, in place of the ones before. Rejects where Redis does not take them. */
  tell(refused: readonly RefusedModel[]): Promise<void>;
}

/**
 * Tells a worker's refusals. Each is in the model's own set, which APIs read for models they know; the names are in one
 * set besides, so that a model that was never served is found.
 */
export function createRefusalTeller(redis: RedisClient, prefix: string, clock: Clock): RefusalTeller {
  /** The refusals that Redis may hold: entry → key. */
  let told = new Map<string, string>();
  return {
    async tell(refused) {
      const now = clock.now();
      const entries = refused.map(({ model, reason, version, worker }) => ({
        model,
        key: modelKeys(prefix, model).refusals,
        text: JSON.stringify({ worker, version, reason } satisfies ModelRefusal),
      }));
      const telling = new Map(entries.map(({ key, text }) => [`${key} ${text}`, key]));
      const gone = [...told].filter(([entry]) => !telling.has(entry));
      // Until all is written, Redis may hold both.
      told = new Map([...told, ...telling]);
      await Promise.all([
        ...gone.map(([entry, key]) => redis.zrem(key, entry.slice(key.length + 1))),
        ...entries.map(({ key, text }) => redis.zadd(key, now + beatTtlMs, text)),
        ...entries.map(({ model }) => redis.zadd(refusedModelsKey(prefix), now + beatTtlMs, model)),
      ]);
      await Promise.all([...new Set(telling.values())].map((key) => redis.zremrangebyscore(key, "-inf", now)));
      await redis.zremrangebyscore(refusedModelsKey(prefix), "-inf", now);
      told = telling;
    },
  };
}

/** The refusals of one model by living workers. */
export async function readRefusals(redis: RedisClient, key: string, nowMs: number): Promise<ModelRefusal[]> {
  const texts = await redis.zrangebyscore(key, nowMs, "+inf");
  return texts.flatMap((text) => refusalSchema.safeParse(JSON.parse(text)).data ?? []);
}

/** Every refusal of a living worker, also of models that were never served; by model and version. */
export async function readRefusedModels(redis: RedisClient, prefix: string, nowMs: number): Promise<RefusedModel[]> {
  const names = await redis.zrangebyscore(refusedModelsKey(prefix), nowMs, "+inf");
  const refused = await Promise.all(
    names.sort().map(async (model) => {
      const refusals = await readRefusals(redis, modelKeys(prefix, model).refusals, nowMs);
      return refusals.map((refusal) => ({ model, ...refusal }));
    }),
  );
  return refused.flat();
}
