import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { findRedis } from "@millrace/cli/redis-server.js";
import { Redis } from "ioredis";
import type { TestProject } from "vitest/node";
import { longestStepMs, noteSlowSteps, readSlowLog, runBeforeOthers, slowLogSettings } from "./longest-steps.js";
import { prefixOf } from "./prefix.js";

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
  const watcher = new Redis(redis.url);
  await watcher.config("SET", ...Object.entries(slowLogSettings).flat());
  await watcher.slowlog("RESET");
  const isBefore = runBeforeOthers(Number(/^process_id:(\d+)/m.exec(await watcher.info("server"))?.[1]));
  return async () => {
    const { others, scripts } = await readSlowLog(watcher);
    const { testFiles } = await project.globTestFiles();
    const files = testFiles.map((path) => relative(project.config.root, path));
    for (const step of scripts) {
      const file = files.find((one) => step.words.some((word) => word.startsWith(prefixOf(one)))) ?? "an unknown file";
      noteSlowSteps(file, [step]);
    }
    const told = isBefore ? "" : ", as long as other processes let Redis run";
    process.stdout.write(
      `steps over ${longestStepMs} ms: ${scripts.length}, other commands: ${others.length}${told}\n`,
    );
    watcher.disconnect();
    await redis.close();
    await rm(dataDir, { recursive: true, force: true });
  };
}
