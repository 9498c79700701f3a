import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import type { AcceptSettings } from "@millrace/shared/scripts/queue/accept.js";
import type { FullQueue } from "@millrace/shared/scripts/queue/accept-outcome.js";
import { ServiceError } from "@millrace/shared/service/errors.js";

/**
 * Throws `queue_full` where so many rows of batches are not done yet, of a model or of the owner's own, that no more
 * may come.
 */
export async function assertQueueCapacity(
  { acceptSettings, redis }: { redis: RedisClient; acceptSettings: AcceptSettings },
  keys: ModelKeys,
  owner: string,
): Promise<void> {
  const [all, own, rate] = await Promise.all([
    redis.get(keys.bulkRows),
    redis.hget(keys.bulkRowsOf, owner),
    redis.hget(keys.chunkLoad, "rows_per_second"),
  ]);
  const { ownerPart, rows: limit } = acceptSettings.limits;
  for (const [whose, text, most] of [
    ["all", all, limit],
    ["own", own, limit * ownerPart],
  ] as const) {
    const held = Number(text ?? 0);
    if (held >= most) throw queueFull({ unit: "rows", whose, held, jobs: held, perSecond: Number(rate ?? 0) });
  }
}

/** Part of the waiting work that is to have begun before a retry is worth it. */
const roomPart = 0.05;
const longestSeconds = 300;
/** Where nothing was begun lately, so that nobody can tell. */
const unknownSeconds = 30;

const units = { jobs: "predictions", rows: "rows", bytes: "bytes of input" };

/** There is no room for more predictions of this model; when to try again is told by how fast the queue drains. */
export function queueFull({ held, jobs, perSecond, unit, whose }: FullQueue): ServiceError {
  const of = whose === "own" ? " of yours" : "";
  const seconds = perSecond > 0 ? Math.ceil(Math.max(1, jobs * roomPart) / perSecond) : unknownSeconds;
  return new ServiceError("queue_full", `The queue is full: ${held} ${units[unit]}${of} are waiting for this model.`, {
    retryAfterSeconds: Math.min(longestSeconds, seconds),
  });
}
