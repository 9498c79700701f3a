import { z } from "zod";
import type { RedisClient } from "../redis/connect-redis.js";
import type { ModelKeys } from "../redis/keys.js";
import type { Announcement } from "./announcement.js";

/**
 * A version with a misfit, by the fingerprint of its files: its outputs were not one per row, so no input shares a run.
 */
const unjoinedSchema = z.object({ fingerprint: z.string(), reason: z.string() });

export type Unjoined = ReadonlyMap<string, z.infer<typeof unjoinedSchema>>;

/** Notes it for every worker, until the version is loaded anew (see `scripts/models/announce.ts`). */
export async function noteUnjoined(
  redis: RedisClient,
  keys: ModelKeys,
  { fingerprint, reason, version }: { version: string; fingerprint: string; reason: string },
): Promise<void> {
  await redis.hset(keys.unjoined, version, JSON.stringify({ fingerprint, reason }));
}

export async function readUnjoined(redis: RedisClient, keys: ModelKeys): Promise<Unjoined> {
  const noted = Object.entries(await redis.hgetall(keys.unjoined));
  return new Map(
    noted.flatMap(([version, text]) => {
      const read = unjoinedSchema.safeParse(JSON.parse(text));
      // An entry of a newer release is skipped.
      return read.success ? [[version, read.data] as const] : [];
    }),
  );
}

/** The reason of a version's misfit; null without one. */
export function reasonUnjoined(unjoined: Unjoined, { fingerprint, version }: Announcement): string | null {
  const noted = unjoined.get(version);
  return noted === undefined || noted.fingerprint !== fingerprint ? null : noted.reason;
}
