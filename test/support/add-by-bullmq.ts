import { keptEvents, predictionJobName } from "@millrace/shared/predictions/job.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { Acceptance } from "@millrace/shared/scripts/queue/accept.js";
import { Queue } from "bullmq";

/** Adds the job of an acceptance to a queue of BullMQ's own, by its `Queue.add`. */
export async function addByBullMq(
  redis: RedisClient,
  { name, prefix }: { name: string; prefix: string },
  accepted: readonly Acceptance[],
  nowMs: number,
): Promise<void> {
  const queue = new Queue(name, { connection: redis as never, prefix, skipMetasUpdate: true });
  await redis.hset(`${prefix}:${name}:meta`, "opts.maxLenEvents", keptEvents);
  const before = Number((await redis.get(`${prefix}:${name}:id`)) ?? 0);
  for (const [i, { dataJson, delayMs, id, priority }] of accepted.entries()) {
    await queue.add(
      predictionJobName,
      { q: before + i + 1, ...JSON.parse(dataJson) },
      { jobId: id, timestamp: nowMs, ...(delayMs > 0 && { delay: delayMs }), ...(priority > 0 && { priority }) },
    );
  }
  await queue.close();
}
