import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { depthOf, untilDrained } from "../harness/deployment.js";
import { inRoot } from "../harness/paths.js";
import { type Figure, figure, type Scenario } from "../harness/scenario.js";
import { startLoad } from "../harness/start-load.js";
import { startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { changing } from "../load/load-spec.js";

const runMs = 20;
const settleMs = 1000;

/**
 * Runs a second of 1, 2 and 4 workers of one slot each, with slots that sleep 20 ms a run instead of computing, and
 * more waiting work than they finish: the shared parts, Redis, API and queue, must not limit them.
 */
export const scaleOut: Scenario = async ({ onClose, quick, say }) => {
  const modelsDir = await mkdtemp(join(tmpdir(), "millrace-bench-models-"));
  onClose(() => rm(modelsDir, { recursive: true, force: true }));
  await cp(inRoot("test/fixtures/models/slow"), join(modelsDir, "slow"), { recursive: true });
  const manifest = { kind: "tensor", batching: { max_batch_rows: 1 } };
  await writeFile(join(modelsDir, "slow", "model.json"), JSON.stringify(manifest));
  const load = startLoad(onClose);
  const workerProgram = inRoot("bench/dist/scale-out/worker.js");
  const stack = await startMillrace(
    await startRedis(onClose),
    { model: "slow", modelsDir, slots: 1, workerProgram },
    onClose,
  );
  const { headers, path, port } = stack;
  const body = `{"input":{"x":[[${changing}]]},"cache":false}`;
  const windowMs = quick ? 1000 : 10_000;

  const perSecond = async (): Promise<number> => {
    const needed = Math.ceil((stack.workers.length * (windowMs + 2 * settleMs)) / runMs);
    // Workers already run while the load is sent, and on a slow machine that takes long.
    for (let depth = 0; depth < needed; depth = await depthOf(stack)) {
      await load.run({ port, path, headers, body, connections: 16, requests: needed - depth, expectStatus: 202 });
    }
    await delay(settleMs);
    const [from, before] = [performance.now(), await depthOf(stack)];
    await delay(windowMs);
    const [to, after] = [performance.now(), await depthOf(stack)];
    // On a busy machine a quick run may be late; it only shows that the scenario works.
    if (after === 0 && !quick) throw new Error("the queue ran empty: the load is too small");
    await untilDrained(stack);
    return ((before - after) * 1000) / (to - from);
  };

  const measured = new Map<number, number>();
  for (const workers of [1, 2, 4]) {
    while (stack.workers.length < workers) await stack.startWorker();
    measured.set(workers, await perSecond());
    say(`${workers} workers: ${measured.get(workers)?.toFixed(1)} runs/s`);
  }
  const one = measured.get(1) as number;
  return [...measured].flatMap(([workers, each]): Figure[] => [
    figure(`${workers} workers: runs`, each, "1/s"),
    ...(workers === 1
      ? [figure("1 worker: runs, of what its slot could do", (each * runMs) / 1000, "ratio")]
      : [figure(`${workers} workers, of linear`, each / (workers * one), "ratio", { bound: "at least", value: 0.95 })]),
  ]);
};
