import { setTimeout as delay } from "node:timers/promises";
import { batchFinished, tree, uploadBatch } from "../../harness/batches.js";
import { flowBody } from "../../harness/bodies.js";
import { untilQuiet } from "../../harness/deployment.js";
import type { FlowFiles } from "../../harness/flows.js";
import { withReleasers } from "../../harness/releasers.js";
import { type Figure, figure, type ScenarioContext } from "../../harness/scenario.js";
import { type Load, startLoad } from "../../harness/start-load.js";
import { startMillrace } from "../../harness/start-millrace.js";
import { startRedis } from "../../harness/start-redis.js";
import type { PaceReport } from "../../load/bulk-spec.js";
import { latencyOf, median } from "../../load/statistics.js";

const perSecond = 200;

/** Single predictions at a steady pace, timed from their due times, without a large batch and beside one. */
export const singlesBeside = ({ onClose: atEnd, quick, say }: ScenarioContext, load: Load, flows: FlowFiles) => {
  const rows = quick ? 5000 : 1_000_000;
  const singles = startLoad(atEnd);
  return withReleasers(async (onClose): Promise<Figure[]> => {
    const stack = await startMillrace(await startRedis(onClose), { model: tree }, onClose);
    const { path, port } = stack;
    const headers = { ...stack.headers, prefer: "wait=30" };
    const body = await flowBody();
    const pace = () => singles.pace({ port, path, headers, body, perSecond });
    const alone = async (ms: number) => {
      const paced = pace();
      await delay(ms);
      return p99Of(await paced.stop(), 0, Number.POSITIVE_INFINITY);
    };
    const beside = async () => {
      const paced = pace();
      await delay(quick ? 100 : 1000);
      const { answeredAt, firstSentAt, id } = await uploadBatch(load, stack, flows, "ndjson", rows);
      const finishedAt = await batchFinished(stack, id, rows);
      const report = await paced.stop();
      return {
        both: p99Of(report, firstSentAt, finishedAt),
        uploading: p99Of(report, firstSentAt, answeredAt),
        running: p99Of(report, answeredAt, finishedAt),
        seconds: (finishedAt - firstSentAt) / 1000,
      };
    };
    await alone(quick ? 300 : 5000);
    const runs: (Awaited<ReturnType<typeof beside>> & { without: number })[] = [];
    for (let i = 1; i <= (quick ? 1 : 3); i++) {
      await untilQuiet(stack);
      const without = await alone(quick ? 300 : 6000);
      const run = { without, ...(await beside()) };
      runs.push(run);
      say(`singles, run ${i}: p99 ${without.toFixed(1)} ms, beside a batch ${run.both.toFixed(1)} ms`);
    }
    const of = (read: (run: (typeof runs)[number]) => number) => median(runs.map(read));
    const name = `singles, ${perSecond}/s`;
    return [
      figure(
        `${name}: p99 beside a batch`,
        of((run) => run.both),
        "ms",
        { bound: "at most", value: 250 },
      ),
      figure(
        "  of that without",
        of((run) => run.both / run.without),
        "ratio",
        { bound: "at most", value: 3 },
      ),
      figure(
        `${name}: p99 without`,
        of((run) => run.without),
        "ms",
      ),
      figure(
        `${name}: p99 while it uploads`,
        of((run) => run.uploading),
        "ms",
      ),
      figure(
        `${name}: p99 while it runs`,
        of((run) => run.running),
        "ms",
      ),
      figure(
        "the batch beside them, uploaded and run",
        of((run) => run.seconds),
        "s",
      ),
    ];
  });
};

/** The p99 of the predictions due in between; 0 without any. */
function p99Of({ dueAt, latencyMs }: PaceReport, from: number, to: number): number {
  const within = latencyMs.filter((_, i) => (dueAt[i] as number) >= from && (dueAt[i] as number) < to);
  return within.length === 0 ? 0 : latencyOf(Float64Array.from(within)).p99;
}
