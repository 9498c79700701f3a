import type { Deployment } from "./deployment.js";
import { inRoot } from "./paths.js";
import type { OnClose } from "./releasers.js";
import { startProcess } from "./start-process.js";
import type { BenchRedis } from "./start-redis.js";

const keyPrefix = "bench-floor";
const queueName = "predictions";

/** Starts the floor: bare Express and BullMQ in an API process, and a no-op worker in another. */
export async function startFloor(
  redis: BenchRedis,
  { waiting }: { waiting: boolean },
  onClose: OnClose,
): Promise<Deployment> {
  const env = {
    PATH: process.env.PATH,
    REDIS_URL: redis.url,
    REDIS_KEY_PREFIX: keyPrefix,
    QUEUE: queueName,
    WAITING: waiting ? "1" : "",
  };
  const worker = await startProcess("floor_worker", "worker", inRoot("bench/dist/floor/worker.js"), env);
  onClose(() => worker.stop());
  const api = await startProcess("floor_api", "api", inRoot("bench/dist/floor/api.js"), env);
  onClose(() => api.stop());
  return {
    name: "floor",
    port: api.port,
    path: "/predictions",
    headers: {},
    redis,
    queue: `${keyPrefix}:${queueName}:`,
    processes: () => [
      { name: "api", pid: api.pid },
      { name: "worker", pid: worker.pid },
      { name: "redis", pid: redis.pid },
    ],
  };
}
