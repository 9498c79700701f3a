import type { Redis } from "ioredis";
import type { RedisClient } from "./connect-redis.js";
import { confirmedKey, type ModelKeys, probeKey } from "./keys.js";
import { nodeOfKey } from "./node-of-key.js";
import { refusalCode } from "./redis-faults.js";

/** Carries out a write of one model on a connection, and resolves once the write is as durable as promised. */
export type ConfirmedWrite = <T>(
  keys: Pick<ModelKeys, "base">,
  write: (redis: RedisClient) => Promise<T>,
) => Promise<T>;

/** Redis did the write, but no replica has acknowledged it: its outcome is unknown. */
export class NotReplicatedError extends Error {
  constructor(detail: string) {
    super(`the write is not confirmed: ${detail}`);
    this.name = "NotReplicatedError";
  }
}

/** For durability on Redis' own disk, which needs no confirmation. */
export const confirmedByRedis =
  (redis: RedisClient): ConfirmedWrite =>
  (_keys, write) =>
    write(redis);

const replicasAsked = 1;
const replicaTimeoutMs = 1000;

/**
 * For `DURABILITY=replica`: a write counts once a replica of the same master has it in memory. One `WAIT` covers all
 * writes answered before it. It must use the connection of the write, unbroken: after a failover the new master would
 * answer for a write that it has never seen. The connection must be a fail-fast one, which repeats nothing elsewhere,
 * and not shared, because commands behind a `WAIT` wait too.
 */
export function confirmedByReplicas(redis: RedisClient): ConfirmedWrite {
  const lines = new WeakMap<Redis, Line>();
  const lineOf = (node: Redis): Line => {
    let line = lines.get(node);
    if (line === undefined) {
      line = createLine(node);
      lines.set(node, line);
    }
    return line;
  };
  return async (keys, write) => {
    const key = confirmedKey(keys.base);
    const node = await nodeOfKey(redis, key);
    if (node === null) throw new NotReplicatedError("the node is not known");
    const line = lineOf(node);
    const { breaks } = line;
    const outcome = await write(node);
    await line.confirm(breaks, key);
    return outcome;
  };
}

/** A connection to one master, and its number of breaks. */
interface Line {
  readonly breaks: number;
  /** Resolves when a replica has every write before, over a connection that has not broken since. */
  confirm(breaksBefore: number, key: string): Promise<void>;
}

function createLine(node: Redis): Line {
  let breaks = 0;
  node.on("close", () => {
    breaks += 1;
  });
  let asking: Promise<unknown> = Promise.resolve();
  let next: Promise<{ breaks: number; replicas: number }> | null = null;

  const ask = async (key: string) => {
    await asking;
    next = null;
    const asked = breaks;
    // A write of its own, so that `WAIT` covers everything that the master has, also writes of other connections.
    const answers = Promise.all([node.set(key, "1", "PX", 60_000), node.wait(replicasAsked, replicaTimeoutMs)]);
    asking = answers.catch(() => undefined);
    const [, replicas] = await answers;
    return { breaks: asked, replicas };
  };
  return {
    get breaks() {
      return breaks;
    },
    async confirm(breaksBefore, key) {
      next ??= ask(key);
      const { breaks: asked, replicas } = await next;
      if (asked !== breaksBefore) throw new NotReplicatedError("the connection broke in between");
      if (replicas < replicasAsked) throw new NotReplicatedError("no replica has it yet");
    },
  };
}

const probeEveryMs = 500;

/** Whether Redis takes writes as durably as is promised, and why not. */
export type RedisState = "writable" | "full" | "not_replicated" | "unavailable";

/** What tells whether Redis takes writes; it is asked twice a second at the most, however often readiness is. */
export function createWriteProbe(confirmed: ConfirmedWrite, base: string): () => Promise<RedisState> {
  let probed: { at: number; state: Promise<RedisState> } | null = null;
  return () => {
    if (probed === null || performance.now() - probed.at > probeEveryMs) {
      const write = confirmed({ base }, (redis) => redis.set(probeKey(base), "1", "PX", 1000));
      const state = write.then(
        () => "writable" as const,
        (fault: Error) => {
          if (fault.name === "NotReplicatedError") return "not_replicated";
          return refusalCode(fault.message) === "OOM" ? "full" : "unavailable";
        },
      );
      probed = { at: performance.now(), state };
    }
    return probed.state;
  };
}
