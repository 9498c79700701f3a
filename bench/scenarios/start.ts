import { setTimeout as delay } from "node:timers/promises";
import { forest } from "../harness/bodies.js";
import { childrenOf, memoryOf } from "../harness/process-usage.js";
import { figure, type Scenario } from "../harness/scenario.js";
import { startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { median } from "../load/statistics.js";

/**
 * Time from start to readiness of a worker with the three intrusion models and two slots, and memory of an idle stack.
 */
export const start: Scenario = async ({ onClose, quick, say }) => {
  const redis = await startRedis(onClose);
  // The start of the stack's own worker is the warm-up: it brings the files into memory.
  const stack = await startMillrace(redis, { model: forest }, onClose);
  const readyAfterMs: number[] = [];
  for (let i = 0; i < (quick ? 1 : 5); i++) {
    await stack.stopWorkers();
    const worker = await stack.startWorker();
    readyAfterMs.push(worker.readyAfterMs);
    say(`ready after ${worker.readyAfterMs} ms`);
  }
  await delay(quick ? 500 : 5000);
  const worker = stack.workers[0] as { pid: number };
  const slots = childrenOf(worker.pid);
  const whole = memoryOf([worker.pid, ...slots]);
  const api = memoryOf([stack.api.pid]);
  return [
    figure("worker, spawned to ready", median(readyAfterMs) / 1000, "s", { bound: "at most", value: 2 }),
    figure("worker, spawned to ready, slowest", Math.max(...readyAfterMs) / 1000, "s"),
    figure(`idle worker with ${slots.length} slots, RSS`, whole.rssMiB, "MiB", { bound: "at most", value: 350 }),
    figure(`idle worker with ${slots.length} slots, PSS`, whole.pssMiB, "MiB"),
    figure("  of it the worker itself, RSS", memoryOf([worker.pid]).rssMiB, "MiB"),
    ...slots.map((pid, i) => figure(`  of it slot ${i + 1}, RSS`, memoryOf([pid]).rssMiB, "MiB")),
    figure("idle API, RSS", api.rssMiB, "MiB", { bound: "at most", value: 120 }),
    figure("idle API, PSS", api.pssMiB, "MiB"),
  ];
};
