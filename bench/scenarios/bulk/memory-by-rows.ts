import { batchFinished, readBack, tree, uploadBatch } from "../../harness/batches.js";
import type { FlowFiles } from "../../harness/flows.js";
import { forgetPeak, usageOf } from "../../harness/process-usage.js";
import { withReleasers } from "../../harness/releasers.js";
import { type Figure, figure, type ScenarioContext } from "../../harness/scenario.js";
import type { Load } from "../../harness/start-load.js";
import { type Millrace, startMillrace } from "../../harness/start-millrace.js";
import { startRedis } from "../../harness/start-redis.js";

const watched = ["api", "worker", "slots"] as const;
const mbOfMiB = 2 ** 20 / 1e6;

interface Peaks {
  /** Peak of each process from its start to the finished batch, in MB; of the larger slot. */
  byProcess: Record<(typeof watched)[number], number>;
  /** Peak of the API while results are read, in MB. */
  reading: number;
  /** Peak of Redis above its use before, in bytes. */
  redisBytes: number;
}

/** Peak memory of each process for a large batch and for one a tenth of its size, each on fresh processes. */
export const memoryByRows = async (
  { quick, say }: ScenarioContext,
  load: Load,
  flows: FlowFiles,
): Promise<Figure[]> => {
  const many = quick ? 5000 : 1_000_000;
  const fewer = many / 10;
  const small = await peaksOf(load, flows, fewer);
  const large = await peaksOf(load, flows, many);
  const packedBytes = many * 4 * flows.features;
  say(`peaks in MB: ${watched.map((name) => `${name} ${Math.round(large.byProcess[name])}`).join(", ")}`);
  return [
    ...watched.flatMap((name) => [
      figure(`${many} rows: peak memory of ${name}`, large.byProcess[name], "MB", { bound: "at most", value: 250 }),
      figure(`  of that for ${fewer} rows`, large.byProcess[name] / small.byProcess[name], "ratio", {
        bound: "at most",
        value: 1.1,
      }),
    ]),
    figure(`${many} results read: peak memory of api`, large.reading, "MB", { bound: "at most", value: 250 }),
    figure(`  of that for ${fewer} results`, large.reading / small.reading, "ratio", { bound: "at most", value: 1.1 }),
    figure(`${many} rows: Redis at its peak, of the packed rows`, large.redisBytes / packedBytes, "ratio", {
      bound: "at most",
      value: 1.5,
    }),
    figure(`${many} rows: Redis at its peak, above idle`, large.redisBytes / 1e6, "MB"),
  ];
};

const peaksOf = (load: Load, flows: FlowFiles, rows: number): Promise<Peaks> =>
  withReleasers(async (onClose) => {
    const redis = await startRedis(onClose);
    const stack = await startMillrace(redis, { model: tree }, onClose);
    const idleBytes = await redis.info("used_memory");
    const { id } = await uploadBatch(load, stack, flows, "ndjson", rows);
    await batchFinished(stack, id, rows);
    const redisBytes = (await redis.info("used_memory_peak")) - idleBytes;
    const byProcess = { api: 0, worker: 0, slots: 0 };
    for (const name of watched) byProcess[name] = peakOf(stack, name);
    forgetPeak(stack.api.pid);
    await readBack(load, stack, id, rows);
    return { byProcess, reading: peakOf(stack, "api"), redisBytes };
  });

const peakOf = (stack: Millrace, name: string): number =>
  Math.max(
    ...stack
      .processes()
      .filter((process) => process.name === name)
      .map(({ pid }) => usageOf(pid).peakMiB * mbOfMiB),
  );
