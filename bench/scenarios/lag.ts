import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { untilDrained } from "../harness/deployment.js";
import { inRoot } from "../harness/paths.js";
import { figure, type Scenario } from "../harness/scenario.js";
import { startLoad } from "../harness/start-load.js";
import { startMillrace, workerMetric } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { median } from "../load/statistics.js";

const slots = 2;
const manifest = { kind: "tensor", batching: { max_batch_rows: 1 } };

/** Delay of the worker's event loop while both its slots run inferences of a second each. */
export const lag: Scenario = async ({ onClose, quick, say }) => {
  const modelsDir = await mkdtemp(join(tmpdir(), "millrace-bench-models-"));
  onClose(() => rm(modelsDir, { recursive: true, force: true }));
  await cp(inRoot("test/fixtures/models/slow"), join(modelsDir, "slow"), { recursive: true });
  await writeFile(join(modelsDir, "slow", "model.json"), JSON.stringify(manifest));
  const load = startLoad(onClose);
  const stack = await startMillrace(await startRedis(onClose), { model: "slow", modelsDir, slots }, onClose);
  const { headers, path, port, workers } = stack;
  const body = JSON.stringify({ input: { x: [[1000]] }, cache: false });
  const read = async (percentile: string) =>
    1000 * (await workerMetric(workers, "ml_event_loop_lag_seconds", `percentile="${percentile}"`));

  const delaysMs: number[] = [];
  const secondsEach: number[] = [];
  for (let i = 0; i < (quick ? 1 : 5); i++) {
    const requests = slots * (quick ? 1 : 12);
    const begun = Date.now();
    // Two scrapes: the first resets the metric, and the scrape itself must not count twice.
    await read("99.9");
    await load.run({ port, path, headers, body, connections: 4, requests, expectStatus: 202 });
    await untilDrained(stack);
    delaysMs.push(await read("99.9"));
    secondsEach.push(((Date.now() - begun) * slots) / 1000 / requests);
    say(`run ${i + 1}: p99.9 ${delaysMs.at(-1)?.toFixed(2)} ms, an inference ${secondsEach.at(-1)?.toFixed(2)} s`);
  }
  return [
    figure("worker's event-loop delay, p99.9", median(delaysMs), "ms", { bound: "at most", value: 20 }),
    figure("worker's event-loop delay, p99.9, worst run", Math.max(...delaysMs), "ms"),
    figure("one inference", median(secondsEach), "s"),
  ];
};
