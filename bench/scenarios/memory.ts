import { flowBody, forest } from "../harness/bodies.js";
import { depthOf } from "../harness/deployment.js";
import { figure, type Scenario } from "../harness/scenario.js";
import { startLoad } from "../harness/start-load.js";
import { startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";

/** Memory of a waiting prediction of 78 features in Redis, over all its keys. */
export const memory: Scenario = async ({ onClose, quick }) => {
  const load = startLoad(onClose);
  const redis = await startRedis(onClose);
  const stack = await startMillrace(redis, { model: forest }, onClose);
  // The model stays announced; without a worker, new predictions wait.
  await stack.stopWorkers();
  const submit = async (requests: number, body: string) => {
    const { headers, path, port } = stack;
    return load.run({ port, path, headers, body, connections: 64, requests, expectStatus: 202 });
  };
  const body = await flowBody();
  await submit(100, body);
  const before = { bytes: await redis.info("used_memory"), depth: await depthOf(stack) };
  const requests = quick ? 500 : 40_000;
  await submit(requests, body);
  const waiting = (await depthOf(stack)) - before.depth;
  if (waiting !== requests) throw new Error(`${requests} predictions were submitted, but ${waiting} wait`);
  const bytes = (await redis.info("used_memory")) - before.bytes;
  return [
    figure("Redis memory per waiting prediction", bytes / requests, "B", { bound: "at most", value: 1300 }),
    figure("waiting predictions", requests, "1"),
  ];
};
