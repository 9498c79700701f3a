import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { type ModelOrder, orderAnswerSchema, type VersionReport } from "@millrace/shared/models/model-order.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { orderKey, ordersChannel, workersKey } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";

/** Reports of living workers on a model, and the number of workers that have not answered yet. */
export interface OrderOutcome {
  reports: Map<string, VersionReport[]>;
  unanswered: number;
}

const lookEveryMs = 50;

/**
 * Has every living worker look at its models folder now, and resolves when all have brought what they serve in step
 * with it, at the latest after `deadlineMs`.
 */
export async function requestRescan(
  redis: RedisClient,
  keyPrefix: string,
  model: string,
  deadlineMs: number,
  clock: Clock,
): Promise<OrderOutcome> {
  const order: ModelOrder = { id: randomBytes(12).toString("hex"), model };
  const key = orderKey(keyPrefix, order.id);
  const deadline = performance.now() + deadlineMs;
  await redis.publish(ordersChannel(keyPrefix), JSON.stringify(order));
  for (;;) {
    const [living, answers] = await Promise.all([
      redis.zrangebyscore(workersKey(keyPrefix), clock.now(), "+inf"),
      redis.hgetall(key),
    ]);
    const unanswered = living.filter((worker) => answers[worker] === undefined).length;
    if (unanswered === 0 || performance.now() > deadline) {
      const reports = Object.entries(answers).map(
        ([worker, text]) => [worker, orderAnswerSchema.parse(JSON.parse(text))] as const,
      );
      return { reports: new Map(reports), unanswered };
    }
    await delay(lookEveryMs);
  }
}
