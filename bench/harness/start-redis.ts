import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type FoundRedis, findRedis, removeData } from "@millrace/cli/redis-server.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import type { OnClose } from "./releasers.js";

/** A private Redis, with a connection to inspect it. */
export interface BenchRedis {
  url: string;
  pid: number;
  client: RedisClient;
  /** One number of `INFO`. */
  info(field: string): Promise<number>;
}

/** Starts a fresh Redis on deploy/redis.conf, its data in a temporary folder. */
export async function startRedis(onClose: OnClose): Promise<BenchRedis> {
  const dataDir = await mkdtemp(join(tmpdir(), "millrace-bench-redis-"));
  onClose(() => removeData(dataDir));
  const found: FoundRedis = await findRedis({
    redisUrl: undefined,
    path: process.env.PATH,
    dataDir,
    say: (line) => process.stderr.write(`${line}\n`),
  });
  onClose(() => found.close());
  const client = openRedis(parseRedisUrl(found.url), "patient", "bench");
  onClose(() => client.disconnect());
  client.on("error", () => undefined);
  return {
    url: found.url,
    pid: found.pid as number,
    client,
    async info(field) {
      const match = new RegExp(`^${field}:([\\d.]+)`, "m").exec(await client.info());
      if (match === null) throw new Error(`Redis INFO has no ${field}`);
      return Number(match[1]);
    },
  };
}
