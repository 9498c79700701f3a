import type { Redis } from "ioredis";
import type { RedisClient } from "./connect-redis.js";
import { nodeOfKey } from "./node-of-key.js";

/** Reads an integer field of an `INFO` section; NaN where the server does not report it. */
const numberIn = (text: string, field: string): number =>
  Number(new RegExp(`^${field}:(\\d+)`, "m").exec(text)?.[1] ?? Number.NaN);

/** Memory in use and its limit, in bytes, 0 for no limit; NaN for what is not reported. Rejects while it is away. */
export async function memoryOf(node: Redis): Promise<{ used: number; max: number }> {
  const text = await node.info("memory");
  return { used: numberIn(text, "used_memory"), max: numberIn(text, "maxmemory") };
}

/** Whether the master that has a key has used that part of its memory; false where it has no limit or is away. */
export async function isMemoryTight(redis: RedisClient, key: string, part: number): Promise<boolean> {
  const node = await nodeOfKey(redis, key);
  if (node === null) return false;
  const { max, used } = await memoryOf(node);
  return max > 0 && used >= max * part;
}

/** Whether the last write of each kind succeeded; kinds that are off are left out. */
export interface Persistence {
  ok: Partial<Record<"aof_write" | "aof_rewrite" | "snapshot", boolean>>;
  /** Size of the append-only file, null without one. */
  aofBytes: number | null;
}

/** How a master persists. Rejects while it is away. */
export async function persistenceOf(node: Redis): Promise<Persistence> {
  const text = await node.info("persistence");
  const ok = (field: string) => {
    const [, status] = new RegExp(`^${field}:(\\w+)`, "m").exec(text) ?? [];
    return status === undefined ? undefined : status === "ok";
  };
  const appends = numberIn(text, "aof_enabled") === 1;
  const kinds = [
    ...(appends ? ([["aof_write", "aof_last_write_status"]] as const) : []),
    ...(appends ? ([["aof_rewrite", "aof_last_bgrewrite_status"]] as const) : []),
    ["snapshot", "rdb_last_bgsave_status"] as const,
  ];
  const bytes = numberIn(text, "aof_current_size");
  return {
    ok: Object.fromEntries(kinds.map(([kind, field]) => [kind, ok(field)]).filter(([, value]) => value !== undefined)),
    aofBytes: appends && !Number.isNaN(bytes) ? bytes : null,
  };
}

/** Replicas that follow a master, and the one that is the furthest behind: bytes, and seconds since it was heard of. */
export interface Replication {
  online: number;
  lagBytes: number;
  lagSeconds: number;
}

/** The replicas of a master. Rejects while it is away. */
export async function replicationOf(node: Redis): Promise<Replication> {
  const text = await node.info("replication");
  const end = numberIn(text, "master_repl_offset");
  const online = [...text.matchAll(/^slave\d+:.*state=online,offset=(\d+),lag=(\d+)/gm)];
  return {
    online: online.length,
    lagBytes: Math.max(0, ...online.map(([, offset]) => end - Number(offset))),
    lagSeconds: Math.max(0, ...online.map(([, , lag]) => Number(lag))),
  };
}
