import { type RedisOptions as AnyRedisOptions, Cluster, Redis } from "ioredis";
import type { Logger } from "../service/log.js";
import { mastersOf } from "./node-of-key.js";
import { refusalCode } from "./redis-faults.js";
import type { RedisTarget } from "./redis-url.js";

type RedisOptions = Omit<AnyRedisOptions, "replyMapping">;

/** A connection to one Redis, to the master behind sentinels, or to a cluster. */
export type RedisClient = Redis | Cluster;

/**
 * Behaviour of a connection while Redis is away. `fail-fast` (the API) fails a command within 1.5 s and neither queues
 * nor repeats it, since it could be carried out twice, or after its caller was told that it failed. `patient` (workers,
 * subscriptions) waits and repeats until Redis is back, or in a cluster for two seconds.
 */
export type ClientMode = "fail-fast" | "patient";

const reconnectDelayMs = (times: number): number => Math.min(times * 50, 200);

const commandTimeoutMs = 1500;
/** Deadline of a patient command after an outage of a cluster's node, in ms; longer than any command blocks. */
const lostAfterMs = 15_000;
const stallMs = 50;
const graceMs = 200;

/**
 * A connection whose commands fail when Redis does not answer in time, but not when this process was too busy to read
 * the answer: a plain timer cannot tell the two apart after the process stood still.
 */
const failFastRedis = (timeoutMs: number) =>
  class FailFastRedis extends Redis {
    override sendCommand(...args: Parameters<Redis["sendCommand"]>): unknown {
      const [command] = args;
      const dueAt = performance.now() + timeoutMs;
      const fail = () => command.reject(new Error("Command timed out"));
      let timer = setTimeout(() => {
        if (performance.now() - dueAt < stallMs) fail();
        else timer = setTimeout(fail, graceMs);
      }, timeoutMs);
      const settled = () => clearTimeout(timer);
      command.promise.then(settled, settled);
      return super.sendCommand(...args);
    }
  };

const sharedOptions = (target: RedisTarget, mode: ClientMode, name: string): RedisOptions => ({
  connectionName: name,
  ...(target.username !== undefined && { username: target.username }),
  ...(target.password !== undefined && { password: target.password }),
  ...(target.tls && { tls: {} }),
  connectTimeout: 2000,
  keepAlive: 5000,
  ...(mode === "fail-fast" ? { maxRetriesPerRequest: 0, enableOfflineQueue: false } : { maxRetriesPerRequest: null }),
});

/**
 * Opens a connection. It connects in the background; errors come as `error` events, which the caller must handle. A
 * fail-fast one fails a command after `timeoutMs`.
 */
export function openRedis(
  target: RedisTarget,
  mode: ClientMode,
  name: string,
  timeoutMs: number = commandTimeoutMs,
): RedisClient {
  const shared = sharedOptions(target, mode, name);
  if (target.kind === "cluster") {
    const cluster = new Cluster(target.hosts, {
      redisOptions: { ...shared, commandTimeout: mode === "fail-fast" ? timeoutMs : lostAfterMs },
      clusterRetryStrategy: reconnectDelayMs,
      enableOfflineQueue: mode === "patient",
      // A command in flight when a node went away may have been done; a redirected one was not.
      // Even a patient connection gives up in the end, because a blocking command repeated for ever gets lost.
      ...(mode === "fail-fast" ? { retryDelayOnFailover: 0, maxRedirections: 8 } : { maxRedirections: 16 }),
    });
    // Nodes are connected to as soon as they are known, because a fail-fast command does not wait for that.
    cluster.on("+node", (node: Redis) => {
      if (node.status === "wait") node.connect().catch(() => undefined);
    });
    return cluster;
  }
  const Connection = mode === "fail-fast" ? failFastRedis(timeoutMs) : Redis;
  const options: RedisOptions = {
    ...shared,
    db: target.database,
    retryStrategy: reconnectDelayMs,
    // A demoted master answers READONLY; a new connection finds the new master.
    reconnectOnError: (error) => (refusalCode(error.message) === "READONLY" ? 2 : false),
  };
  if (target.kind === "sentinel") {
    return new Connection({
      ...options,
      sentinels: target.hosts,
      name: target.masterName as string,
      sentinelRetryStrategy: reconnectDelayMs,
      ...(target.password !== undefined && { sentinelPassword: target.password }),
      ...(target.tls && { sentinelTLS: {}, enableTLSForSentinelMode: true }),
    });
  }
  if (target.socketPath !== undefined) return new Connection({ ...options, path: target.socketPath });
  const [address] = target.hosts;
  return new Connection({ ...options, host: address?.host as string, port: address?.port as number });
}

/**
 * Opens a patient connection for subscriptions. In a cluster, where every node receives every message, it leads to one
 * node of `REDIS_URL`, and to the next one when it breaks: ioredis' own cluster client can lose a subscription for good
 * when nodes come and go.
 */
export function openSubscriber(target: RedisTarget, name: string): RedisClient {
  if (target.kind !== "cluster") return openRedis(target, "patient", name);
  const { hosts } = target;
  let tried = Math.floor(Math.random() * hosts.length);
  const next = () => hosts[tried++ % hosts.length] as { host: string; port: number };
  const redis = new Redis({
    ...sharedOptions(target, "patient", name),
    ...next(),
    retryStrategy(times) {
      Object.assign(redis.options, next());
      return reconnectDelayMs(times);
    },
  });
  return redis;
}

/** Resolves when the connection can take commands; rejects with the last fault after `deadlineMs`. */
export async function whenReady(redis: RedisClient, deadlineMs: number): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  await ready(redis, deadlineMs);
  await Promise.all(mastersOf(redis).map(([, node]) => ready(node, deadline - performance.now())));
}

function ready(redis: RedisClient, deadlineMs: number): Promise<void> {
  if (redis.status === "ready") return Promise.resolve();
  return new Promise((resolve, reject) => {
    let last: Error | undefined;
    const settle = (act: () => void) => {
      clearTimeout(timer);
      redis.off("ready", onReady);
      redis.off("error", onError);
      act();
    };
    const onReady = () => settle(resolve);
    const onError = (error: Error) => {
      last = error;
    };
    const timer = setTimeout(() => {
      settle(() => reject(new Error(`Redis did not answer within ${deadlineMs} ms`, { cause: last })));
    }, deadlineMs);
    redis.on("ready", onReady);
    redis.on("error", onError);
  });
}

/** Logs the loss of a connection once, and its return once; `away` tells whether it is lost. */
export function watchRedis(redis: RedisClient, log: Logger): { readonly away: boolean } {
  let away = false;
  redis.on("error", (error: Error) => {
    if (!away) log.error("redis connection lost", { error: error.message });
    away = true;
  });
  redis.on("ready", () => {
    if (away) log.info("redis connection is back");
    away = false;
  });
  return {
    get away() {
      return away;
    },
  };
}

/** Closes a connection at once; may be called twice. */
export function closeRedis(redis: RedisClient): void {
  redis.disconnect();
}
