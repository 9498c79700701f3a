import { batchesPath } from "../../harness/batches.js";
import { forest } from "../../harness/bodies.js";
import type { FlowFiles } from "../../harness/flows.js";
import { inRoot } from "../../harness/paths.js";
import { withReleasers } from "../../harness/releasers.js";
import { type Figure, figure, type ScenarioContext } from "../../harness/scenario.js";
import type { Load } from "../../harness/start-load.js";
import { startMillrace } from "../../harness/start-millrace.js";
import { startRedis } from "../../harness/start-redis.js";
import { startRunRows } from "../../harness/start-run-rows.js";
import { median } from "../../load/statistics.js";

const rows = 1000;

/** A thousand rows as JSON, submitted, waited for and read back, against a bare `JSON.parse` and a bare run of them. */
export const jsonBatch = ({ quick, say }: ScenarioContext, load: Load, flows: FlowFiles): Promise<Figure[]> =>
  withReleasers(async (onClose) => {
    const redis = await startRedis(onClose);
    const stack = await startMillrace(redis, { model: forest }, onClose);
    const run = startRunRows(onClose);
    const { file, packedFile } = await flows.jsonBatch(rows);
    const order = {
      model: inRoot(`models/${forest}/1/model.onnx`),
      packedFile,
      jsonFile: file,
      features: flows.features,
      rows,
      chunkRows: rows,
    };
    const exchange = (times: number) =>
      load.exchange({ port: stack.port, path: batchesPath(stack), headers: stack.headers, file, rows, times });
    const kept = [Buffer.alloc(rows * 4 * flows.features, 1), Buffer.from("taken"), Buffer.alloc(rows * 66, 1)];
    /**
     * Inputs, the claim of a chunk, and outputs: Redis must write all three to its disk, one after the other, before it
     * can return results.
     */
    const keep = async (): Promise<number> => {
      const begun = performance.now();
      for (const [i, bytes] of kept.entries()) await redis.client.set(`bench-kept-${i}`, bytes);
      return performance.now() - begun;
    };
    const times = quick ? 2 : 100;
    await exchange(quick ? 1 : 30);
    for (let i = 0; i < (quick ? 1 : 30); i++) await run(order);
    const bare: { parseMs: number; runMs: number }[] = [];
    const keptMs: number[] = [];
    const parts: Record<"wholeMs" | "acceptedMs" | "finishedMs", number[]> = {
      wholeMs: [],
      acceptedMs: [],
      finishedMs: [],
    };
    // Alternately, so that other load on the machine affects both alike.
    for (let i = 0; i < times; i++) {
      bare.push(await run(order));
      keptMs.push(await keep());
      const report = await exchange(1);
      for (const part of ["wholeMs", "acceptedMs", "finishedMs"] as const) parts[part].push(...report[part]);
    }
    const floorMs = median(bare.map(({ parseMs, runMs }) => parseMs + runMs));
    const wholeMs = median(parts.wholeMs);
    say(`${rows} rows as JSON: ${wholeMs.toFixed(1)} ms, bare ${floorMs.toFixed(1)} ms`);
    const name = `${rows} rows as JSON, forest`;
    return [
      figure(`${name}: whole, p50, of floor`, wholeMs / floorMs, "ratio", { bound: "at most", value: 2 }),
      figure(`${name}: whole, p50`, wholeMs, "ms"),
      figure("  of it until accepted", median(parts.acceptedMs), "ms"),
      figure("  of it from there until told that it is finished", median(parts.finishedMs), "ms"),
      figure(`${name}: floor, p50`, floorMs, "ms"),
      figure("  of it JSON.parse", median(bare.map(({ parseMs }) => parseMs)), "ms"),
      figure("  of it the ONNX run", median(bare.map(({ runMs }) => runMs)), "ms"),
      figure("besides: three durable writes of the same bytes, one after the other", median(keptMs), "ms"),
    ];
  });
