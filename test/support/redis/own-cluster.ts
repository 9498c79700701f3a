import { Redis } from "ioredis";
import { expect } from "vitest";
import { eventually } from "../eventually.js";
import { OwnRedis } from "./own-redis.js";

const slots = 16_384;

/** A Redis Cluster of masters on loopback; a test may kill and restart each of its processes. */
export interface OwnCluster {
  nodes: readonly OwnRedis[];
  url: string;
  /** Sends one command to one node. */
  ask(node: number, ...command: [string, ...string[]]): Promise<unknown>;
  /** Waits until every node reports the cluster as ok. */
  untilWhole(): Promise<void>;
  /** Waits until every other node reports slots as failed. */
  untilMissed(node: number): Promise<void>;
  /** The node of a key. */
  nodeOf(key: string): Promise<number>;
  close(): Promise<void>;
}

export async function startOwnCluster(size: number): Promise<OwnCluster> {
  const args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
  const nodes = await Promise.all(Array.from({ length: size }, () => OwnRedis.start(args)));
  const ask: OwnCluster["ask"] = async (node, ...command) => {
    const connection = new Redis({ port: (nodes[node] as OwnRedis).port, maxRetriesPerRequest: 1 });
    try {
      return await connection.call(...command);
    } finally {
      connection.disconnect();
    }
  };
  const firstOf = (node: number) => Math.floor((node * slots) / size);
  await Promise.all(nodes.map((_, i) => ask(i, "CLUSTER", "ADDSLOTSRANGE", `${firstOf(i)}`, `${firstOf(i + 1) - 1}`)));
  for (const { port } of nodes.slice(1)) await ask(0, "CLUSTER", "MEET", "127.0.0.1", `${port}`);
  const untilWhole = async () => {
    for (const i of nodes.keys()) {
      expect(await ask(i, "CLUSTER", "INFO")).toMatch(/cluster_state:ok[\s\S]*cluster_slots_ok:16384/);
    }
  };
  await eventually(untilWhole, 30_000);
  return {
    untilWhole: () => eventually(untilWhole, 30_000),
    untilMissed: (node) =>
      eventually(async () => {
        for (const i of nodes.keys()) {
          if (i !== node) expect(await ask(i, "CLUSTER", "INFO")).toMatch(/cluster_slots_fail:[1-9]/);
        }
      }, 30_000),
    nodes,
    url: `redis+cluster://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(",")}`,
    ask,
    async nodeOf(key) {
      const slot = Number(await ask(0, "CLUSTER", "KEYSLOT", key));
      return nodes.findIndex((_, i) => slot >= firstOf(i) && slot < firstOf(i + 1));
    },
    async close() {
      await Promise.all(nodes.map((node) => node.close()));
    },
  };
}
