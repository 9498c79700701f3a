import { flowBody, forest } from "../../harness/bodies.js";
import { untilDrained } from "../../harness/deployment.js";
import { inRoot } from "../../harness/paths.js";
import { usageOf } from "../../harness/process-usage.js";
import { withReleasers } from "../../harness/releasers.js";
import { type Figure, figure, type ScenarioContext } from "../../harness/scenario.js";
import type { Load } from "../../harness/start-load.js";
import { startMillrace } from "../../harness/start-millrace.js";
import { startProcess } from "../../harness/start-process.js";
import { startRedis } from "../../harness/start-redis.js";
import { changing } from "../../load/load-spec.js";
import { median } from "../../load/statistics.js";

/** Latency of an answer from the cache for one caller, beyond that of Express for an answer of the same size. */
export const cacheHit = ({ quick, say }: ScenarioContext, load: Load): Promise<Figure[]> =>
  withReleasers(async (onClose) => {
    const stack = await startMillrace(await startRedis(onClose), { model: forest }, onClose);
    const { api, headers, path, port } = stack;
    const body = (await flowBody()).replace(changing, "12345678");
    const post = async () => {
      const url = `http://127.0.0.1:${port}${path}`;
      const response = await fetch(url, {
        method: "POST",
        headers: { ...headers, "content-type": "application/json" },
        body,
      });
      return { status: response.status, text: await response.text() };
    };
    await post();
    await untilDrained(stack);
    const cached = await post();
    if (cached.status !== 200) throw new Error(`not answered from the cache: ${cached.status} ${cached.text}`);
    const floor = await startProcess("floor_api", "api", inRoot("bench/dist/floor/answer.js"), {
      PATH: process.env.PATH,
      ANSWER_BYTES: String(Buffer.byteLength(cached.text)),
    });
    onClose(() => floor.stop());

    const requests = quick ? 100 : 2000;
    const spec = { headers, body, connections: 1, requests, expectStatus: 200 };
    const runs = {
      ours: () => load.run({ ...spec, port, path }),
      floor: () => load.run({ ...spec, port: floor.port, path: "/predictions" }),
    };
    for (const run of Object.values(runs)) await run();
    const cpuBefore = usageOf(api.pid).cpuSeconds;
    const p50s: Record<"ours" | "floor", number[]> = { ours: [], floor: [] };
    const p99s: number[] = [];
    const rounds = quick ? 1 : 7;
    for (let i = 1; i <= rounds; i++) {
      const { latency: bare } = await runs.floor();
      const { latency } = await runs.ours();
      p50s.floor.push(bare.p50);
      p50s.ours.push(latency.p50);
      p99s.push(latency.p99);
      say(`cache hit, round ${i}: p50 ${latency.p50.toFixed(2)} ms, Express ${bare.p50.toFixed(2)} ms`);
    }
    const cpuSeconds = usageOf(api.pid).cpuSeconds - cpuBefore;
    const beyond = median(p50s.ours.map((value, i) => value - (p50s.floor[i] as number)));
    return [
      figure("cache hit: p50, beyond Express", beyond, "ms", { bound: "at most", value: 1 }),
      figure("cache hit: p50", median(p50s.ours), "ms"),
      figure("cache hit: p99", median(p99s), "ms"),
      figure("cache hit: Express, p50", median(p50s.floor), "ms"),
      figure("cache hit: CPU of api", (cpuSeconds * 1e6) / (rounds * requests), "s/million"),
    ];
  });
