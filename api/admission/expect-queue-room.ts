import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import type { AcceptSettings } from "@millrace/shared/scripts/queue/accept.js";
import { queueFull } from "./queue-full.js";

/** Throws `queue_full` where so many rows of batches are not done yet, of a model or of the owner's own, that no more may come. */
export async function expectQueueRoom(
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
