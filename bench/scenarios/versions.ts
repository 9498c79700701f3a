import { cp, mkdtemp, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { openLog } from "@millrace/shared/log.js";
import { defaultManifest } from "@millrace/shared/manifest.js";
import { modelDigest } from "@millrace/shared/model-digest.js";
import { SlotPool } from "@millrace/workers/slot-pool.js";
import { flowBody, forest } from "../harness/bodies.js";
import { inRoot } from "../harness/paths.js";
import { childrenOf, memoryOf } from "../harness/process-usage.js";
import { startLoad } from "../harness/start-load.js";
import { startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { median } from "../harness/statistics.js";
import { writeMlp } from "../harness/write-mlp.js";
import { type Figure, figure, type Scenario, type ScenarioContext } from "./scenario.js";

const perSecond = 300;

/** A version that is swapped under load, and the memory after many loads and unloads. */
export const versions: Scenario = async (context) => [...(await swap(context)), ...(await loads(context))];

/** 300 predictions a second while a version is put into the folder, takes over, and the old one is taken away. */
async function swap({ onClose, quick, say }: ScenarioContext): Promise<Figure[]> {
  const modelsDir = await mkdtemp(join(tmpdir(), "millrace-bench-models-"));
  onClose(() => rm(modelsDir, { recursive: true, force: true }));
  await cp(inRoot(`models/${forest}`), join(modelsDir, forest), { recursive: true });
  const load = startLoad(onClose);
  const stack = await startMillrace(await startRedis(onClose), { model: forest, modelsDir }, onClose);
  const durationMs = quick ? 6000 : 20_000;
  const body = await flowBody();
  const pace = (ms: number, counting: string) =>
    load.pace({
      ...{ port: stack.port, path: stack.path, connections: 64, expectStatus: 200, perSecond, durationMs: ms },
      ...{ headers: { ...stack.headers, prefer: "wait=30" }, body, counting },
    });
  const p99s: number[] = [];
  const calmP99s: number[] = [];
  let failed = 0;
  let requests = 0;
  const rounds = quick ? 1 : 3;
  for (let round = 1; round <= rounds; round++) {
    const folder = (version: number | string) => join(modelsDir, forest, String(version));
    const calm = await pace(durationMs / 2, "");
    calmP99s.push(calm.latency.p99);
    const running = pace(durationMs, `"version":"${round + 1}"`);
    await delay(durationMs / 10);
    await cp(folder(round), folder("aside"), { recursive: true });
    await writeFile(join(folder("aside"), "note.txt"), `made for round ${round}\n`);
    await rename(folder("aside"), folder(round + 1));
    await delay(durationMs / 4);
    await rm(folder(round), { recursive: true });
    const report = await running;
    if (report.firstFault !== null) say(`first fault: ${report.firstFault.slice(0, 300)}`);
    if (report.counted === 0) throw new Error("the new version never answered");
    p99s.push(report.latency.p99);
    failed += report.failed;
    requests += report.requests;
    const { max, p50, p99 } = report.latency;
    say(
      `swap ${round} of ${rounds}: ${report.counted} of ${report.requests} on the new version, ${report.failed} failed, ` +
        `p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, max ${max.toFixed(1)} ms`,
    );
  }
  return [
    figure(`requests at ${perSecond}/s over ${rounds} swaps`, requests, "requests"),
    figure("  of them failed", failed, "requests", { bound: "at most", value: 0 }),
    figure("swap under load, p99, median run", median(p99s), "ms", { bound: "at most", value: 250 }),
    figure("swap under load, p99, worst run", Math.max(...p99s), "ms"),
    figure("the same pace without a swap, p99, median run", median(calmP99s), "ms"),
  ];
}

/** 200 loads and unloads of a 5 MB model in a slot pool; what this process and its slot hold before and after. */
async function loads({ onClose, quick, say }: ScenarioContext): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), "millrace-bench-mlp-"));
  onClose(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "model.onnx");
  await writeMlp(file, { inputs: 64, layers: 2, width: 1100, outputs: 10 });
  const pool = new SlotPool({
    ...{ slots: 1, environment: { PATH: process.env.PATH }, log: openLog("bench", "error") },
    onIdle: () => undefined,
    onDeath: () => undefined,
  });
  onClose(() => pool.close());
  const digest = await modelDigest(folder);
  const cycle = async (key: number) => {
    const request = { key, model: "mlp", version: "1", folder, file, digest, manifest: defaultManifest() };
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
  // Some, so that what is grown once only does not count.
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
