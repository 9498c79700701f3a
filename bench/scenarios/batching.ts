import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { flowBody } from "../harness/bodies.js";
import { measure } from "../harness/measure.js";
import { inRoot } from "../harness/paths.js";
import { type Figure, figure, type Scenario } from "../harness/scenario.js";
import { startLoad } from "../harness/start-load.js";
import { benchKeys, type Millrace, startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { writeMlp } from "../harness/write-mlp.js";
import { changing } from "../load/load-spec.js";
import { median } from "../load/statistics.js";

const allShipped = ["intrusion-random-forest", "intrusion-xgboost", "intrusion-decision-tree"];
const inputs = 64;

/** Throughput of single predictions with batching against the same model one row a run. */
export const batching: Scenario = async ({ onClose, quick, say }) => {
  const modelsDir = await mkdtemp(join(tmpdir(), "millrace-bench-models-"));
  onClose(() => rm(modelsDir, { recursive: true, force: true }));
  const shipped = quick ? allShipped.slice(0, 1) : allShipped;
  const mlp = join(modelsDir, "mlp");
  await writeMlp(join(mlp, "1/model.onnx"), { inputs, layers: 4, width: 2048, outputs: 10 });
  await writeFile(join(mlp, "model.json"), JSON.stringify({ kind: "tensor" }));
  for (const model of shipped) await cp(inRoot(`models/${model}`), join(modelsDir, model), { recursive: true });
  const models = ["mlp", ...shipped];
  for (const model of models) await copyWithoutBatching(modelsDir, model);

  const load = startLoad(onClose);
  const stack = await startMillrace(await startRedis(onClose), { model: "mlp", modelsDir }, onClose);
  const zeros = Array.from({ length: inputs - 1 }, () => "0.5").join(",");
  const bodies: Record<string, string> = { mlp: `{"cache":false,"input":{"x":[[${changing},${zeros}]]}}` };
  const figures: Figure[] = [];
  for (const model of models) {
    const body = bodies[model] ?? (await flowBody());
    const requests = quick ? 100 : model === "mlp" ? 2000 : 10_000;
    const rates: { joined: number[]; single: number[] } = { joined: [], single: [] };
    const rounds = quick ? 1 : 5;
    for (let round = 0; round <= rounds; round++) {
      for (const [kind, name] of [
        ["joined", model],
        ["single", `${model}-single`],
      ] as const) {
        const shape = {
          body,
          connections: 64,
          requests: round === 0 ? Math.ceil(requests / 4) : requests,
          waiting: false,
        };
        const { finishedPerSecond } = await measure(load, modelOf(stack, name), shape);
        // The first round is the warm-up.
        if (round > 0) rates[kind].push(finishedPerSecond);
      }
    }
    const ratio = median(rates.joined.map((rate, i) => rate / (rates.single[i] as number)));
    say(`${model}: ${median(rates.joined).toFixed(0)}/s joined, ${median(rates.single).toFixed(0)}/s one by one`);
    figures.push(
      figure(`${model}: with batching, of without`, ratio, "ratio", {
        bound: "at least",
        value: model === "mlp" ? 2 : 0.95,
      }),
      figure(`  ${model}: with batching`, median(rates.joined), "1/s"),
    );
  }
  return figures;
};

async function copyWithoutBatching(modelsDir: string, model: string): Promise<void> {
  const copy = join(modelsDir, `${model}-single`);
  await cp(join(modelsDir, model), copy, { recursive: true });
  const manifest = JSON.parse(await readFile(join(copy, "model.json"), "utf8"));
  await writeFile(join(copy, "model.json"), JSON.stringify({ ...manifest, batching: { max_batch_rows: 1 } }));
}

const modelOf = (stack: Millrace, model: string): Millrace => ({
  ...stack,
  path: `/v1/models/${model}/predictions`,
  queue: benchKeys(model).queue,
});
