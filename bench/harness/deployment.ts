import { setTimeout as delay } from "node:timers/promises";
import type { Watched } from "./process-usage.js";
import type { BenchRedis } from "./start-redis.js";

/** A system that takes predictions over HTTP and works them off: Millrace, or the floor for comparison. */
export interface Deployment {
  name: "floor" | "ours";
  port: number;
  path: string;
  headers: Record<string, string>;
  redis: BenchRedis;
  /** Prefix of the keys of its BullMQ queue, including the last colon. */
  queue: string;
  /** All its processes except the generator. */
  processes(): Watched[];
}

const lookEveryMs = 5;

/** Number of waiting and running jobs. */
export async function depthOf({ queue, redis }: Pick<Deployment, "queue" | "redis">): Promise<number> {
  const counts = await Promise.all([
    redis.client.llen(`${queue}wait`),
    redis.client.llen(`${queue}active`),
    redis.client.zcard(`${queue}prioritized`),
    redis.client.zcard(`${queue}delayed`),
  ]);
  return counts.reduce((sum, count) => sum + count, 0);
}

/** Resolves when no job waits or runs, within 5 ms. Rejects after `deadlineMs`. */
export async function untilDrained(of: Pick<Deployment, "queue" | "redis">, deadlineMs = 120_000): Promise<void> {
  const deadline = Date.now() + deadlineMs;
  while ((await depthOf(of)) > 0) {
    if (Date.now() > deadline) throw new Error(`jobs are still waiting after ${deadlineMs} ms`);
    await delay(lookEveryMs);
  }
}

/** Resolves when Redis does no background work that would be attributed to a measurement. */
export async function untilQuiet({ redis }: Pick<Deployment, "redis">): Promise<void> {
  while ((await redis.info("aof_rewrite_in_progress")) > 0) await delay(50);
}
