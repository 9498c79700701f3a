import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { flowBody, forest } from "../harness/bodies.js";
import { untilDrained, untilQuiet } from "../harness/deployment.js";
import { inRoot } from "../harness/paths.js";
import { type Figure, figure, type Scenario, type ScenarioContext } from "../harness/scenario.js";
import { type Load, startLoad } from "../harness/start-load.js";
import { type Millrace, startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { latencyOf, median } from "../load/statistics.js";

const MiB = 1 << 20;
/** A large input with a small output, and one with an output of the same size. */
const sums = "row-sums";
const echo = "dynamic-inner";

/** Cost of the tensor API: one row against `/v1`, a MiB against the bare run and JSON, 32 MiB beside other callers. */
export const tensor: Scenario = async (context) => {
  const { onClose } = context;
  const modelsDir = await mkdtemp(join(tmpdir(), "millrace-bench-models-"));
  onClose(() => rm(modelsDir, { recursive: true, force: true }));
  await cp(inRoot(`models/${forest}`), join(modelsDir, forest), { recursive: true });
  for (const model of [sums, echo]) {
    await cp(inRoot(`test/fixtures/models/${model}`), join(modelsDir, model), { recursive: true });
  }
  const load = startLoad(onClose);
  const stack = await startMillrace(await startRedis(onClose), { model: forest, modelsDir }, onClose);
  return [
    ...(await oneRow(context, load, stack)),
    ...(await oneMebibyte(context, load, stack)),
    ...(await besideLarge(context, load, stack)),
  ];
};

/** Alternates two runs, so that other load on the machine affects both alike; the p50s of each. */
async function inTurn(
  rounds: number,
  runs: Record<"ours" | "other", () => Promise<{ latency: { p50: number } }>>,
): Promise<{ ours: number[]; other: number[] }> {
  const p50s = { ours: [] as number[], other: [] as number[] };
  for (const run of Object.values(runs)) await run();
  for (let i = 0; i < rounds; i++) {
    p50s.other.push((await runs.other()).latency.p50);
    p50s.ours.push((await runs.ours()).latency.p50);
  }
  return p50s;
}

const pairs = ({ other, ours }: { ours: number[]; other: number[] }, read: (ours: number, other: number) => number) =>
  median(ours.map((value, i) => read(value, other[i] as number)));

async function oneRow({ quick, say }: ScenarioContext, load: Load, stack: Millrace): Promise<Figure[]> {
  const body = await flowBody();
  const values = body.slice('{"input":'.length, -1);
  const tensorBody = `{"inputs":[{"name":"features","datatype":"FP32","shape":[1,78],"data":${values}}]}`;
  const spec = { port: stack.port, connections: 1, requests: quick ? 50 : 600, expectStatus: 200 };
  const waiting = { ...stack.headers, prefer: "wait=30" };
  const p50s = await inTurn(quick ? 1 : 7, {
    other: () => load.run({ ...spec, path: stack.path, headers: waiting, body }),
    ours: () => load.run({ ...spec, path: `/v2/models/${forest}/infer`, headers: stack.headers, body: tensorBody }),
  });
  say(`one row: p50 ${median(p50s.ours).toFixed(2)} ms, /v1 ${median(p50s.other).toFixed(2)} ms`);
  return [
    figure(
      "a row of 78: p50, of /v1",
      pairs(p50s, (a, b) => a / b),
      "ratio",
      { bound: "at most", value: 1.05 },
    ),
    figure("a row of 78: p50", median(p50s.ours), "ms"),
    figure("a row of 78: p50, /v1", median(p50s.other), "ms"),
  ];
}

const headOf = (bytes: number, rest: string): string =>
  `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,${bytes / 4}]${rest}}],` +
  '"parameters":{"binary_data_output":true,"cache":false}}';

const binaryHead = (bytes: number): string => headOf(bytes, `,"parameters":{"binary_data_size":${bytes}}`);

async function oneMebibyte({ quick, say }: ScenarioContext, load: Load, stack: Millrace): Promise<Figure[]> {
  const { headers, port } = stack;
  const spec = { port, headers, connections: 1, requests: quick ? 5 : 60, expectStatus: 200 };
  const numbers = Array.from({ length: MiB / 4 }, (_, i) => Math.fround((i % 1000) / 7));
  const asBytes = { body: binaryHead(MiB), binaryBytes: MiB };
  const asJson = { body: headOf(MiB, `,"data":${JSON.stringify(numbers)}`) };
  const rounds = quick ? 1 : 7;
  const p50s = await inTurn(rounds, {
    other: () => load.run({ ...spec, path: `/v2/models/${sums}/infer`, ...asJson, requests: quick ? 2 : 10 }),
    ours: () => load.run({ ...spec, path: `/v2/models/${sums}/infer`, ...asBytes }),
  });
  const echoed = await inTurn(rounds, {
    other: () => bareRun(sums, numbers, spec.requests),
    ours: () => load.run({ ...spec, path: `/v2/models/${echo}/infer`, ...asBytes }),
  });
  const bare = median(echoed.other);
  const binary = median(p50s.ours);
  say(
    `1 MiB: p50 ${binary.toFixed(1)} ms, as JSON ${median(p50s.other).toFixed(1)} ms, bare run ${bare.toFixed(2)} ms`,
  );
  return [
    figure("1 MiB in binary: p50, beyond the bare run", binary - bare, "ms", { bound: "at most", value: 10 }),
    figure(
      "1 MiB in binary: faster than as JSON",
      pairs(p50s, (a, b) => b / a),
      "times",
      { bound: "at least", value: 5 },
    ),
    figure("1 MiB as JSON: p50", median(p50s.other), "ms"),
    figure("1 MiB: bare run, p50", bare, "ms"),
    figure("1 MiB in binary, 1 MiB back: p50", median(echoed.ours), "ms"),
  ];
}

/** The bare model, in this process, on the same numbers. */
async function bareRun(
  model: string,
  numbers: readonly number[],
  times: number,
): Promise<{ latency: { p50: number } }> {
  const session = await InferenceSession.create(inRoot(`test/fixtures/models/${model}/1/model.onnx`), {
    ...{ intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: "sequential" },
  });
  const x = new Tensor("float32", Float32Array.from(numbers), [1, numbers.length]);
  const tookMs = new Float64Array(times);
  for (let i = 0; i < times; i++) {
    const begun = performance.now();
    await session.run({ x });
    tookMs[i] = performance.now() - begun;
  }
  await session.release();
  return { latency: latencyOf(tookMs) };
}

/** One caller sends and receives 32 MiB repeatedly; others wait for a row meanwhile, and before, for comparison. */
async function besideLarge({ onClose, quick, say }: ScenarioContext, load: Load, stack: Millrace): Promise<Figure[]> {
  const { headers, path, port } = stack;
  const others = startLoad(onClose);
  const bytes = (quick ? 4 : 32) * MiB;
  const body = await flowBody();
  const rows = {
    ...{ port, path, body, connections: 4, expectStatus: 200 },
    headers: { ...headers, prefer: "wait=30" },
  };
  const alone = await others.run({ ...rows, requests: quick ? 50 : 2000 });
  await untilQuiet(stack);

  const large = load.run({
    ...{ port, headers, path: `/v2/models/${echo}/infer`, body: binaryHead(bytes), binaryBytes: bytes },
    ...{ connections: 1, requests: quick ? 2 : 20, expectStatus: 200 },
  });
  let done = false;
  void large
    .catch(() => undefined)
    .finally(() => {
      done = true;
    });
  const p99s: number[] = [];
  const longest: number[] = [];
  while (!done) {
    const { latency } = await others.run({ ...rows, requests: 100 });
    p99s.push(latency.p99);
    longest.push(latency.max);
  }
  const { latency } = await large;
  await untilDrained(stack);
  say(`32 MiB: p50 ${latency.p50.toFixed(0)} ms; others wait ${Math.max(...longest).toFixed(0)} ms at the longest`);
  return [
    figure("beside 32 MiB: another caller waits, longest", Math.max(...longest), "ms", {
      bound: "at most",
      value: 250,
    }),
    figure("beside 32 MiB: another caller waits, p99", median(p99s), "ms"),
    figure("without: another caller waits, p99", alone.latency.p99, "ms"),
    figure("32 MiB in binary, 32 MiB back: p50", latency.p50, "ms"),
  ];
}
