import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { root } from "./run/tools.js";

const folder = join(root, "test/fixtures/releases");
const agoMs = 2 * 3_600_000;
/** BullMQ keeps due times as ms × 4096 and a counter. */
const delayedFactor = 0x1000;

// biome-ignore lint/suspicious/noExplicitAny: predictions in the form of their release
type Prediction = any;

/** Contents of Redis left by a release; `test/fixtures/releases/record.js` writes them. */
export interface RecordedRelease {
  release: string;
  recordedAt: number;
  prefix: string;
  /** The beginning of its webhook URLs. */
  receiver: string;
  /** A submission with an idempotency key, and its prediction. */
  again: { model: string; key: string; body: object };
  finished: Prediction;
  failed: Prediction;
  /** Finished, with a webhook that failed once. */
  told: string;
  /** Ids of predictions that were not final. */
  left: Record<
    "running" | "taken" | "waiting" | "joined" | "urgent" | "delayed" | "expiring" | "retry" | "called",
    string
  >;
  finishedBatch: Prediction;
  /** A waiting batch of three rows, with a webhook. */
  leftBatch: string;
  keys: Record<string, { type: string; value: string | string[] | Record<string, string>; ttlMs?: number }>;
}

/** Every recorded release, oldest first. */
export function recordedReleases(): RecordedRelease[] {
  const names = readdirSync(folder).filter((name) => /^\d+\.\d+\.\d+\.json$/.test(name));
  const parts = (name: string) => name.split(".").slice(0, 3).map(Number);
  names.sort((a, b) => parts(a).reduce((order, part, i) => order || part - (parts(b)[i] as number), 0));
  return names.map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")));
}

/**
 * Restores a release's keys under another prefix, with webhooks to another receiver and times two hours in the past.
 */
export async function restore(redis: RedisClient, recorded: RecordedRelease, prefix: string, receiver: string) {
  const offset = Date.now() - agoMs - recorded.recordedAt;
  const moved = (text: string): string =>
    text
      .replaceAll(recorded.receiver, receiver)
      .replace(/\b\d{13}\b/g, (digits) =>
        Math.abs(Number(digits) - recorded.recordedAt) < 86_400_000 ? String(Number(digits) + offset) : digits,
      );
  for (const [name, { ttlMs, type, value }] of Object.entries(recorded.keys)) {
    const key = name.replace(recorded.prefix, prefix);
    const list = Array.isArray(value) ? value.map(moved) : [];
    if (type === "string") await redis.set(key, moved(value as string));
    else if (type === "hash") {
      const fields = Object.entries(value as Record<string, string>).map(([field, text]) => [field, moved(text)]);
      await redis.hset(key, Object.fromEntries(fields));
    } else if (type === "list") await redis.rpush(key, ...list);
    else if (type === "set") await redis.sadd(key, ...list);
    else if (type === "zset") {
      for (let i = 0; i < list.length; i += 2) {
        const score = Number(list[i + 1]);
        await redis.zadd(key, key.endsWith(":delayed") ? score + offset * delayedFactor : score, list[i] as string);
      }
    } else if (type !== "stream") throw new Error(`${name} is a ${type}`);
    if (ttlMs !== undefined) await redis.pexpire(key, ttlMs);
  }
}
