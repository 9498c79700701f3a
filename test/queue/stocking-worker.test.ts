import { setTimeout as delay } from "node:timers/promises";
import { openRedis, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { StockingWorker } from "@millrace/workers/queue/stocking-worker.js";
import { expect, test } from "vitest";
import { machineClock } from "../support/redis/machine-clock.js";
import { OwnRedis } from "../support/redis/own-redis.js";

class Idle extends StockingWorker<string> {}

test("a worker that is closed while it reconnects to Redis ends once it is connected", async () => {
  const store = await OwnRedis.start();
  const redis = openRedis(parseRedisUrl(store.url), "patient", "test");
  redis.on("error", () => undefined);
  try {
    await whenReady(redis, 10_000);
    const worker = new Idle("idle", "t:{idle}:idle:", async () => "done", redis, {
      prefix: "t:{idle}",
      clock: machineClock,
    });
    worker.on("error", () => undefined);
    await worker.waitUntilReady();
    await store.kill();
    // Closes between two connections, when no connection can report its end.
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
