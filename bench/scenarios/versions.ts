import { cp, mkdtemp, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { workerTiming } from "@millrace/shared/config/timing.js";
import { defaultManifest } from "@millrace/shared/models/manifest.js";
import { modelDigest } from "@millrace/shared/models/model-digest.js";
import { openLog } from "@millrace/shared/service/log.js";
import { SlotPool } from "@millrace/workers/runs/slot-pool.js";
import { flowBody, forest } from "../harness/bodies.js";
import { inRoot } from "../harness/paths.js";
import { childrenOf, memoryOf } from "../harness/process-usage.js";
import { type Figure, figure, type Scenario, type ScenarioContext } from "../harness/scenario.js";
import { startLoad } from "../harness/start-load.js";
import { startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { writeMlp } from "../harness/write-mlp.js";
import { latencyOf, median } from "../load/statistics.js";

const perSecond = 300;

/** The swap of a version under load, and the memory after many loads and unloads. */
export const versions: Scenario = async (context) => [...(await swap(context)), ...(await loads(context))];

/** 300 predictions a second while a version is added to the folder, takes over, and the old one is removed. */
async function swap({ onClose, quick, say }: ScenarioContext): Promise<Figure[]> {
  const modelsDir = await mkdtemp(join(tmpdir(), "millrace-bench-models-"));
  onClose(() => rm(modelsDir, { recursive: true, force: true }));
  await cp(inRoot(`models/${forest}`), join(modelsDir, forest), { recursive: true });
  const load = startLoad(onClose);
  const stack = await startMillrace(await startRedis(onClose), { model: forest, modelsDir }, onClose);
  const durationMs = quick ? 6000 : 20_000;
  const { headers, path, port } = stack;
  const spec = { port, path, headers: { ...headers, prefer: "wait=60" }, body: await flowBody(), perSecond };
  /** Latency at the pace while `act` lasts; rejects when an answer is not a result. */
  const during = async (act: () => Promise<unknown>) => {
    const paced = load.pace(spec);
    await act();
    const { latencyMs } = await paced.stop();
    return { requests: latencyMs.length, ...latencyOf(Float64Array.from(latencyMs)) };
  };
  const p99s: number[] = [];
  const calmP99s: number[] = [];
  let requests = 0;
  const rounds = quick ? 1 : 3;
  for (let round = 1; round <= rounds; round++) {
    const folder = (version: number | string) => join(modelsDir, forest, String(version));
    const calm = await during(() => delay(durationMs / 2));
    calmP99s.push(calm.p99);
    const swapped = await during(async () => {
      await delay(durationMs / 10);
      await cp(folder(round), folder("aside"), { recursive: true });
      await writeFile(join(folder("aside"), "note.txt"), `made for round ${round}\n`);
      await rename(folder("aside"), folder(round + 1));
      await delay(durationMs / 4);
      await rm(folder(round), { recursive: true });
      await delay((durationMs * 13) / 20);
    });
    await untilServed(`http://127.0.0.1:${port}/v1/models/${forest}`, headers, String(round + 1));
    p99s.push(swapped.p99);
    requests += swapped.requests;
    say(
      `swap ${round} of ${rounds}: p50 ${swapped.p50.toFixed(1)} ms, p99 ${swapped.p99.toFixed(1)} ms, ` +
        `max ${swapped.max.toFixed(1)} ms; without one p99 ${calm.p99.toFixed(1)} ms`,
    );
  }
  return [
    figure(`requests at ${perSecond}/s over ${rounds} swaps, of which none failed`, requests, "requests"),
    figure("swap under load, p99, median run", median(p99s), "ms", { bound: "at most", value: 250 }),
    figure("swap under load, p99, worst run", Math.max(...p99s), "ms"),
    figure("the same pace without a swap, p99, median run", median(calmP99s), "ms"),
  ];
}

/** Resolves when a version is the default one; loading it takes a slow machine some time. */
async function untilServed(model: string, headers: Record<string, string>, wanted: string): Promise<void> {
  const deadline = Date.now() + 60_000;
  for (let served = ""; served !== wanted; await delay(100)) {
    const answer = await fetch(model, { headers });
    served = ((await answer.json()) as { default_version: string }).default_version;
    if (Date.now() > deadline) throw new Error(`version ${served} still answers, not ${wanted}`);
  }
}

/** 200 loads and unloads of a 5 MB model in a slot pool: memory of this process and its slot before and after. */
async function loads({ onClose, quick, say }: ScenarioContext): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), "millrace-bench-mlp-"));
  onClose(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "model.onnx");
  await writeMlp(file, { inputs: 64, layers: 2, width: 1100, outputs: 10 });
  const pool = new SlotPool({
    ...{ slots: 1, environment: { PATH: process.env.PATH }, log: openLog("bench", "error") },
    slowLoadMs: workerTiming.slowLoadMs,
    onIdle: () => undefined,
    onDeath: () => undefined,
  });
  onClose(() => pool.close());
  const digest = await modelDigest(folder);
  const cycle = async (key: number) => {
    const request = {
      key,
      model: "mlp",
      version: "1",
      folder,
      file,
      digest,
      manifest: defaultManifest(),
    };
    const [reply] = await pool.load([request]);
    if (!reply?.ok) throw new Error(`load ${key} failed`);
    pool.unload(key);
  };
  const memory = async () => {
    global.gc?.();
    await delay(quick ? 100 : 2000);
    return { host: memoryOf([process.pid]).rssMiB, slot: memoryOf(pool.pids).rssMiB, slots: childrenOf(process.pid) };
  };
  let key = 0;
  // A few first, so that memory grown only once does not count.
  for (let i = 0; i < (quick ? 1 : 10); i++) await cycle(++key);
  const before = await memory();
  const times = quick ? 3 : 200;
  for (let i = 1; i <= times; i++) {
    await cycle(++key);
    if (i % 50 === 0) say(`${i} loads and unloads`);
  }
  const after = await memory();
  const growth = (after.host + after.slot) / (before.host + before.slot);
  return [
    figure("size of the model", (await stat(file)).size / 1e6, "MB"),
    figure(`memory after ${times} loads and unloads, of before`, growth, "ratio", { bound: "at most", value: 1.1 }),
    figure("  the slot's, before", before.slot, "MiB"),
    figure("  the slot's, after", after.slot, "MiB"),
    figure("  the process that holds the pool, before", before.host, "MiB"),
    figure("  the process that holds the pool, after", after.host, "MiB"),
    figure("  processes left over", after.slots.length - before.slots.length, "processes", {
      bound: "at most",
      value: 0,
    }),
  ];
}
