import { openRedis, openSubscriber, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { MarkerWaiter } from "@millrace/workers/queue/marker-waiter.js";
import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { type OwnCluster, startOwnCluster } from "../support/redis/own-cluster.js";
import { OwnRedis } from "../support/redis/own-redis.js";

const marker = "a:{queue}:marker";
const name = "the-waiter";

describe("waiting for the marker of a queue", () => {
  let server: OwnRedis;
  let redis: Redis;
  let waiter: MarkerWaiter;

  beforeAll(async () => {
    server = await OwnRedis.start();
    redis = openRedis(parseRedisUrl(server.url), "patient", "test") as Redis;
    redis.on("error", () => undefined);
  });
  afterAll(async () => {
    redis.disconnect();
    await server.close();
  });
  beforeEach(() => {
    waiter = new MarkerWaiter(redis, marker, name);
  });
  afterEach(() => waiter.close());

  const connections = async (): Promise<string[]> =>
    ((await redis.client("LIST")) as string).split("\n").filter((line) => line.includes(`name=${name}`));
  const untilBlocked = () => eventually(async () => expect((await connections()).join()).toContain("cmd=bzpopmin"));

  test("ends with the marker, written before or during the wait, or with null at the end of its time", async () => {
    await redis.zadd(marker, 5, "1");
    expect(await waiter.wait(5)).toEqual({ member: "1", score: 5 });
    const waiting = waiter.wait(30);
    await untilBlocked();
    await redis.zadd(marker, 0, "0");
    expect(await waiting).toEqual({ member: "0", score: 0 });
    expect(await waiter.wait(0.01)).toBeNull();
  });

  test("ends when it is interrupted, and for good when it is closed", async () => {
    const waiting = waiter.wait(30);
    await untilBlocked();
    waiter.interrupt();
    expect(await waiting).toBeNull();
    waiter.close();
    expect(await waiter.wait(30)).toBeNull();
    await eventually(async () => expect(await connections()).toEqual([]));
  });

  test("ends when its connection breaks, and the next wait uses another", async () => {
    const waiting = waiter.wait(30);
    await untilBlocked();
    const [id] = /(?<=^id=)\d+/.exec((await connections())[0] as string) as RegExpExecArray;
    await redis.client("KILL", "ID", id);
    expect(await waiting).toBeNull();
    await redis.zadd(marker, 0, "0");
    expect(await waiter.wait(5)).toEqual({ member: "0", score: 0 });
  });

  test("ends when Redis stops answering, and the next wait works when it answers again", async () => {
    const waiting = waiter.wait(1);
    await untilBlocked();
    process.kill(server.pid, "SIGSTOP");
    expect(await waiting).toBeNull();
    process.kill(server.pid, "SIGCONT");
    await eventually(async () => {
      // Redis may pop a marker for the abandoned connection until it notices that it is closed.
      await redis.zadd(marker, 0, "0");
      expect(await waiter.wait(5)).toEqual({ member: "0", score: 0 });
    });
  });
});

describe("on a cluster whose nodes fail and return, each in turn", () => {
  let cluster: OwnCluster;
  let redis: RedisClient;
  let subscriber: RedisClient;

  beforeAll(async () => {
    cluster = await startOwnCluster(3);
    const target = parseRedisUrl(cluster.url);
    redis = openRedis(target, "patient", "test");
    subscriber = openSubscriber(target, "subscriber");
    for (const connection of [redis, subscriber]) connection.on("error", () => undefined);
  });
  afterAll(async () => {
    subscriber.disconnect();
    redis.disconnect();
    await cluster.close();
  });

  test("a subscription gets messages from any node, and a waiter its marker", async () => {
    const heard = new Set<string>();
    subscriber.on("message", (_channel: string, text: string) => heard.add(text));
    await subscriber.subscribe("news");
    const waiter = new MarkerWaiter(redis, marker, name);
    for (const [i, node] of cluster.nodes.entries()) {
      await node.kill();
      const others = cluster.nodes.map((_, n) => n).filter((n) => n !== i);
      // Messages published while the subscription moves to another node may be lost.
      await eventually(async () => {
        for (const n of others) await cluster.ask(n, "PUBLISH", "news", `${n} without ${i}`);
        for (const n of others) expect(heard).toContain(`${n} without ${i}`);
      }, 30_000);
      await node.resume();
      await cluster.untilWhole();
      await eventually(async () => {
        await redis.zadd(marker, 0, "0");
        expect(await waiter.wait(1)).toEqual({ member: "0", score: 0 });
      }, 30_000);
    }
    waiter.close();
  });
});
