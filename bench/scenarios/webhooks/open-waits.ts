import { setTimeout as delay } from "node:timers/promises";
import { flowBody, forest } from "../../harness/bodies.js";
import { memoryOf, usageOf } from "../../harness/process-usage.js";
import { withReleasers } from "../../harness/releasers.js";
import { type Figure, figure, type ScenarioContext } from "../../harness/scenario.js";
import type { Load } from "../../harness/start-load.js";
import { benchKeys, startMillrace } from "../../harness/start-millrace.js";
import { type BenchRedis, startRedis } from "../../harness/start-redis.js";

const duePerSecond = 500;

/** Thousands of concurrent waits: their cost to the API, and the latency from result to answer. */
export const openWaits = ({ quick, say }: ScenarioContext, load: Load): Promise<Figure[]> =>
  withReleasers(async (onClose) => {
    const redis = await startRedis(onClose);
    const stack = await startMillrace(redis, { model: forest }, onClose);
    const { api, headers, path, port } = stack;
    const waits = quick ? 200 : 5000;
    const firstDueAt = Date.now() + (quick ? 4000 : 30_000);
    const body = await flowBody();
    // A failure before the wait for it is reported there.
    const held = load.hold({ port, path, headers, body, waits, firstDueAt, duePerSecond });
    held.catch(() => undefined);
    await Promise.race([held, delay(firstDueAt - Date.now() - 1000)]);
    const open = await watched(redis);
    const whileOpen = memoryOf([api.pid]).rssMiB;
    say(`${open} wait`);
    const cpuBefore = usageOf(api.pid).cpuSeconds;
    const { finishedPerSecond, latency } = await held;
    const usage = usageOf(api.pid);
    // On a busy machine a quick run may be late; it only shows that the scenario works.
    if (open < waits && !quick) throw new Error(`${open} of ${waits} waits were open when the results came`);
    return [
      figure(`${waits} open waits: peak memory of api`, usage.peakMiB, "MiB", { bound: "at most", value: 250 }),
      figure(`${waits} open waits: memory of api before results`, whileOpen, "MiB"),
      figure(`${waits} open waits: final to answered, p99`, latency.p99, "ms", { bound: "at most", value: 50 }),
      figure(`${waits} open waits: final to answered, p50`, latency.p50, "ms"),
      figure(`${waits} open waits: final to answered, longest`, latency.max, "ms"),
      figure(`${waits} open waits: results`, finishedPerSecond, "1/s"),
      figure(
        `${waits} open waits: CPU of api, per answer`,
        ((usage.cpuSeconds - cpuBefore) * 1e6) / waits,
        "s/million",
      ),
    ];
  });

/** Number of predictions with watchers. */
async function watched({ client }: BenchRedis): Promise<number> {
  const found = new Set<string>();
  let cursor = "0";
  do {
    const [next, keys] = await (client as { scan: ScanKeys }).scan(
      cursor,
      "MATCH",
      `${benchKeys(forest).interest("")}*`,
      "COUNT",
      1000,
    );
    for (const key of keys) found.add(key);
    cursor = next;
  } while (cursor !== "0");
  return found.size;
}

type ScanKeys = (
  cursor: string,
  match: "MATCH",
  pattern: string,
  count: "COUNT",
  each: number,
) => Promise<[string, string[]]>;
