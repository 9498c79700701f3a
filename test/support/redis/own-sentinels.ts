import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { expect } from "vitest";
import { eventually } from "../eventually.js";
import { freePort, OwnRedis, programOnPath } from "./own-redis.js";

const masterName = "millrace";

/** One master, two replicas and three sentinels on loopback. */
export interface OwnSentinels {
  url: string;
  /** Kills the current master; resolves to it, so that it can be restarted, then as a replica. */
  killMaster(): Promise<OwnRedis>;
  /** The current replicas. */
  replicas(): Promise<OwnRedis[]>;
  /** Waits until there is a master with that many replicas in sync. */
  untilReplicated(replicas: number): Promise<void>;
  close(): Promise<void>;
}

export async function startOwnSentinels(): Promise<OwnSentinels> {
  const first = await OwnRedis.start();
  const follow = ["--replicaof", "127.0.0.1", `${first.port}`, "--repl-diskless-sync-delay", "0"];
  const nodes = [first, ...(await Promise.all([1, 2].map(() => OwnRedis.start(follow))))];
  const ports = await Promise.all([freePort(), freePort(), freePort()]);
  const folder = await mkdtemp(join(tmpdir(), "millrace-sentinels-"));
  const program = await programOnPath();
  const sentinels: ChildProcess[] = [];
  for (const port of ports) {
    const file = join(folder, `${port}.conf`);
    await writeFile(
      file,
      [
        `port ${port}`,
        "bind 127.0.0.1",
        `dir ${folder}`,
        `sentinel monitor ${masterName} 127.0.0.1 ${first.port} 2`,
        `sentinel down-after-milliseconds ${masterName} 1500`,
        `sentinel failover-timeout ${masterName} 6000`,
        "",
      ].join("\n"),
    );
    sentinels.push(spawn(program, [file, "--sentinel"], { stdio: "ignore" }));
  }
  const asked = new Redis({ port: ports[0] as number, maxRetriesPerRequest: null });
  asked.on("error", () => undefined);
  const masterPort = async (): Promise<number> => {
    const [, port] = (await asked.call("SENTINEL", "get-master-addr-by-name", masterName)) as [string, string];
    return Number(port);
  };
  const info = async (port: number, section: string): Promise<string> => {
    const connection = new Redis({ port, maxRetriesPerRequest: 0, retryStrategy: () => null });
    connection.on("error", () => undefined);
    try {
      return await connection.info(section);
    } finally {
      connection.disconnect();
    }
  };
  const untilReplicated = (replicas: number) =>
    eventually(async () => {
      const text = await info(await masterPort(), "replication");
      expect(text.match(/^slave\d+:.*state=online/gm) ?? []).toHaveLength(replicas);
    }, 40_000);
  await eventually(async () => {
    for (const port of ports) {
      expect(await info(port, "sentinel")).toMatch(/status=ok,address=[^,]*,slaves=2,sentinels=3/);
    }
  }, 40_000);
  await untilReplicated(2);
  return {
    url: `redis+sentinel://${ports.map((port) => `127.0.0.1:${port}`).join(",")}/${masterName}`,
    async killMaster() {
      const port = await masterPort();
      const master = nodes.find((node) => node.port === port) as OwnRedis;
      await master.kill();
      return master;
    },
    async replicas() {
      const port = await masterPort();
      return nodes.filter((node) => node.port !== port);
    },
    untilReplicated,
    async close() {
      asked.disconnect();
      for (const child of sentinels) child.kill("SIGKILL");
      await Promise.all(nodes.map((node) => node.close()));
      await rm(folder, { recursive: true, force: true });
    },
  };
}
