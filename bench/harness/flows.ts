import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { sampleOf } from "@millrace/cli/start-stack.js";
import { forest } from "./bodies.js";
import { inRoot } from "./paths.js";
import type { OnClose } from "./releasers.js";

export type FlowForm = "ndjson" | "objects" | "csv" | "packed";

/** Flows in files, each of which holds every flow once; larger bodies repeat a file. */
export interface FlowFiles {
  /** Number of distinct flows. */
  count: number;
  real: boolean;
  features: number;
  /** A file without a header, and the end offset of each flow in it. */
  form(form: FlowForm): { file: string; ends: number[] };
  /** The header of a CSV. */
  csvHeader: string;
  /** A JSON body of `rows` flows from all over the data, and the same flows packed as float32. */
  jsonBatch(rows: number): Promise<{ file: string; packedFile: string }>;
}

const data = inRoot("../shared/data/cicids2017/");
const madeCount = 25_000;

/**
 * Writes the flows of CIC-IDS2017 from beside the repository to a temporary folder, or made flows if there are none.
 */
export async function writeFlows(onClose: OnClose): Promise<FlowFiles> {
  const dir = await mkdtemp(join(tmpdir(), "millrace-bench-flows-"));
  onClose(() => rm(dir, { recursive: true, force: true }));
  const manifest = JSON.parse(await readFile(inRoot(`models/${forest}/model.json`), "utf8"));
  const names = (manifest.input.features as (string | { name: string })[]).map((feature) =>
    typeof feature === "string" ? feature : feature.name,
  );
  const real = existsSync(data);
  const flows = real ? await readFlows(names) : await makeFlows();
  const keys = names.map((name) => `${JSON.stringify(name)}:`);
  const files = new Map<FlowForm, { file: string; ends: number[] }>();
  const write = async (form: FlowForm, encode: (flow: string[]) => Buffer) => {
    const parts = flows.map(encode);
    let end = 0;
    const ends = parts.map((part) => {
      end += part.length;
      return end;
    });
    const file = join(dir, form);
    await writeThrough(file, Buffer.concat(parts));
    files.set(form, { file, ends });
  };
  await write("ndjson", (flow) => Buffer.from(`[${flow.join(",")}]\n`));
  await write("objects", (flow) => Buffer.from(`{${flow.map((text, i) => `${keys[i]}${text}`).join(",")}}\n`));
  await write("csv", (flow) => Buffer.from(`${flow.join(",")}\n`));
  await write("packed", packed);
  return {
    count: flows.length,
    real,
    features: names.length,
    form: (form) => files.get(form) as { file: string; ends: number[] },
    csvHeader: `${names.join(",")}\n`,
    async jsonBatch(rows) {
      const chosen = Array.from({ length: rows }, (_, i) => flows[Math.floor((i * flows.length) / rows)] as string[]);
      const [file, packedFile] = [join(dir, `${rows}.json`), join(dir, `${rows}.packed`)];
      await writeThrough(file, `{"inputs":[${chosen.map((flow) => `[${flow.join(",")}]`).join(",")}]}`);
      await writeThrough(packedFile, Buffer.concat(chosen.map(packed)));
      return { file, packedFile };
    },
  };
}

/** Flushed at once, so that no fsync of Redis waits for these bytes. */
const writeThrough = (file: string, bytes: Buffer | string) => writeFile(file, bytes, { flush: true });

const packed = (flow: string[]): Buffer => Buffer.from(Float32Array.from(flow, Number).buffer);

/** The numbers of each flow, spelled as in the data. */
async function readFlows(names: readonly string[]): Promise<string[][]> {
  const flows: string[][] = [];
  for (const file of (await readdir(data)).sort()) {
    const [header = "", ...lines] = gunzipSync(await readFile(join(data, file)))
      .toString()
      .trimEnd()
      .split(/\r?\n/);
    if (!header.startsWith(`${names.join(",")},`)) throw new Error(`${file} has other columns than the model`);
    for (const line of lines) flows.push(line.split(",").slice(0, names.length));
  }
  return flows;
}

/** Flows around the shipped samples, with as many digits as real ones. */
async function makeFlows(): Promise<string[][]> {
  const samples: number[][] = [];
  for (let i = 0; i < 8; i++) samples.push((await sampleOf(forest, i)).input as number[]);
  let seed = 1;
  const next = () => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return seed / 2 ** 32;
  };
  return Array.from({ length: madeCount }, (_, i) =>
    (samples[i % samples.length] as number[]).map((value) =>
      String(Number.isInteger(value) ? Math.round(value * (0.9 + next() / 5)) : value * (0.9 + next() / 5)),
    ),
  );
}
