import { setTimeout as delay } from "node:timers/promises";
import { openRedis, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { StockingWorker } from "@millrace/workers/queue/stocking-worker.js";
import { expect, test } from "vitest";
import { OwnRedis } from "../support/redis/own-redis.js";

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
    await store.kill();
    // At that very moment, in which there is no connection that could tell of its end.
    const closed = await new Promise<{ closing: Promise<void> }>((resolve) =>
      redis.once("reconnecting", () => resolve({ closing: worker.close() })),
    );
    await store.resume();
    const late = delay(10_000, "still open", { ref: false });
    expect(await Promise.race([closed.closing.then(() => "closed"), late])).toBe("closed");
  } finally {
    redis.disconnect();
    await store.close();
  }
});
