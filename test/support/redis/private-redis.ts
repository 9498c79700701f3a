import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findRedis } from "@millrace/cli/redis-server.js";

/** A Redis for one test file alone, which counts its commands or breaks its connections. */
export async function startOwnRedis(): Promise<{ url: string; close(): Promise<void> }> {
  const dataDir = await mkdtemp(join(tmpdir(), "millrace-own-redis-"));
  const redis = await findRedis({ redisUrl: undefined, path: process.env.PATH, dataDir, say: () => undefined });
  return {
    url: redis.url,
    async close() {
      await redis.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
