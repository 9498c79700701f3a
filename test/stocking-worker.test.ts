import { openRedis, type RedisClient, whenReady } from "@millrace/shared/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis-url.js";
import { StockingWorker } from "@millrace/workers/stocking-worker.js";
import { expect, test } from "vitest";
import { eventually } from "./support/eventually.js";
import { OwnRedis } from "./support/own-redis.js";

class Idle extends StockingWorker<string> {}

test("a worker that is closed while it is about to find back to Redis ends when it has", async () => {
  const store = await OwnRedis.start();
  const redis = openRedis(parseRedisUrl(store.url), "patient", "test");
  redis.on("error", () => undefined);
  try {
    await whenReady(redis, 10_000);
    const worker = new Idle("idle", "t:{idle}:idle:", async () => "done", redis, { prefix: "t:{idle}" });
    worker.on("error", () => undefined);
    await worker.waitUntilReady();
    const inside = worker as unknown as { backend: { blockingConnection: { client: Promise<RedisClient> } } };
    const blocking = await inside.backend.blockingConnection.client;
    await store.kill();
    // At that very moment, in which there is no connection that could tell of its end.
    const closed = await new Promise<{ closing: Promise<void> }>((resolve) =>
      blocking.once("reconnecting", () => resolve({ closing: worker.close() })),
    );
    await store.resume();
    await closed.closing;
    await eventually(() => expect(blocking.status).toBe("end"));
  } finally {
    redis.disconnect();
    await store.close();
  }
});
