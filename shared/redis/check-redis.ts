import type { Redis } from "ioredis";
import type { Logger } from "../service/log.js";
import { type RedisClient, whenReady } from "./connect-redis.js";
import { mastersOf } from "./node-of-key.js";

/** Facts about Redis, and the durability of a command that it has acknowledged. */
export interface RedisFacts {
  version: string;
  /**
   * `replica`: also in a replica; `fsync`: on disk; `everysec`: on disk within a second; `none`: lost when Redis is
   * killed; `unknown`: not known. Of several masters, the weakest.
   */
  durability: "replica" | "fsync" | "everysec" | "none" | "unknown";
  maxmemoryPolicy: string;
  /** Warnings to the operator before the first job. */
  warnings: string[];
}

/** Redis cannot be used, or was not reachable within the deadline. The message holds no address. */
export class RedisUnusableError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "RedisUnusableError";
  }
}

const oldestVersion = [6, 2] as const;

/**
 * Checks Redis before the first job: reachable within the deadline, version 6.2 or later, no eviction, and as durable
 * as `DURABILITY` promises. Rejects with a RedisUnusableError where work could be lost against the promise.
 */
export async function checkRedis(redis: RedisClient, deadlineMs: number, promised?: string): Promise<RedisFacts> {
  try {
    await whenReady(redis, deadlineMs);
  } catch (fault) {
    throw new RedisUnusableError(`Redis is not reachable (waited ${deadlineMs} ms); see REDIS_URL`, fault);
  }
  const masters = mastersOf(redis).map(([, node]) => node);
  const infos = await Promise.all(masters.map(async (node) => parseInfo(await node.info())));
  const [info] = infos as [Map<string, string>];
  const version = info.get("redis_version") ?? "0";
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (major < oldestVersion[0] || (major === oldestVersion[0] && minor < oldestVersion[1])) {
    throw new RedisUnusableError(`Redis ${version} is too old: 6.2 or later is needed`);
  }
  const warnings: string[] = [];
  const policies = infos.map((each) => each.get("maxmemory_policy") ?? "unknown");
  const maxmemoryPolicy = policies.find((policy) => policy !== "noeviction") ?? "noeviction";
  if (maxmemoryPolicy !== "noeviction") {
    warnings.push(
      `maxmemory-policy is ${maxmemoryPolicy}: when memory runs out, Redis will drop waiting predictions and results ` +
        "without a word; set noeviction",
    );
  }
  const levels = await Promise.all(masters.map((node, i) => readDurability(node, infos[i] as Map<string, string>)));
  const durability = weakestFirst.find((level) => levels.includes(level)) ?? "unknown";
  if (promised === "replica") {
    await Promise.all(masters.map((node) => expectReplica(node)));
    return { version, durability: "replica", maxmemoryPolicy, warnings };
  }
  if (infos.some((each) => Number(each.get("connected_slaves") ?? 0) > 0)) {
    warnings.push("there are replicas, and a failover loses what they have not yet; set DURABILITY=replica");
  }
  if (durability === "none") {
    warnings.push("nothing is persisted: when Redis dies, every accepted prediction is lost; set appendonly yes");
  }
  const broken = brokenPromise(promised, durability);
  if (broken !== null) throw new RedisUnusableError(broken);
  return { version, durability, maxmemoryPolicy, warnings };
}

/**
 * Keeps the facts up to date: a connection that is back may lead to another Redis with other settings. A broken promise
 * is then a warning, because accepted work is there. Not for `DURABILITY=replica`, which is checked with each write.
 */
export function keepFacts(
  redis: RedisClient,
  facts: RedisFacts,
  deadlineMs: number,
  promised: string | undefined,
  log: Logger,
) {
  if (promised === "replica") return;
  redis.on("ready", () => {
    checkRedis(redis, deadlineMs).then(
      (now) => {
        const broken = brokenPromise(promised, now.durability);
        if (broken !== null) now.warnings.unshift(broken);
        const before = facts.warnings;
        Object.assign(facts, now);
        for (const warning of now.warnings) if (!before.includes(warning)) log.warn(`redis: ${warning}`);
      },
      // The connection is lost again.
      () => undefined,
    );
  });
}

const weakestFirst = ["none", "unknown", "everysec", "fsync"] as const;

function brokenPromise(promised: string | undefined, durability: RedisFacts["durability"]): string | null {
  const kept = promised === "fsync" ? durability === "fsync" : promised !== "everysec" || durability !== "none";
  return kept ? null : `DURABILITY=${promised} is promised, but Redis is set up for: ${durability}`;
}

/** Deadline of a replica's acknowledgement at the start, in ms. */
const replicaTimeoutMs = 1000;

/** Rejects with a RedisUnusableError unless a replica of this master acknowledges a write. */
async function expectReplica(node: Redis): Promise<void> {
  const replicas = await node.wait(1, replicaTimeoutMs);
  if (replicas < 1) {
    throw new RedisUnusableError("DURABILITY=replica is promised, but a master has no replica that answers");
  }
}

async function readDurability(redis: Redis, info: Map<string, string>): Promise<(typeof weakestFirst)[number]> {
  if (info.get("aof_enabled") !== "1") return "none";
  try {
    const [, policy] = (await redis.config("GET", "appendfsync")) as [string, string];
    if (policy === "always") return "fsync";
    return policy === "everysec" ? "everysec" : "none";
  } catch {
    // Managed services refuse CONFIG; their documentation states their durability.
    return "unknown";
  }
}

const parseInfo = (text: string): Map<string, string> =>
  new Map(
    text
      .split("\r\n")
      .filter((line) => line.includes(":"))
      .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)]),
  );
