import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findRedis } from "@millrace/cli/redis-server.js";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    redisUrl: string;
  }
}

/** One Redis for all test files, found or started as by `npm start`; each file has its own key prefix. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const dataDir = await mkdtemp(join(tmpdir(), "millrace-test-"));
  const redis = await findRedis({
    redisUrl: process.env.REDIS_URL,
    path: process.env.PATH,
    dataDir,
    say: (line) => process.stdout.write(`${line}\n`),
  });
  project.provide("redisUrl", redis.url);
  return async () => {
    await redis.close();
    await rm(dataDir, { recursive: true, force: true });
  };
}
