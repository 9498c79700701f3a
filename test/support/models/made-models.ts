import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fromFloat16Bits, toFloat16Bits } from "@millrace/shared/tensors/float16.js";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { TestStack } from "../stack/stack.js";
import { type ModelFile, onnxFile } from "./onnx-file.js";

/** A model made by a test: its graph, and optionally its manifest and other files. */
export interface MadeModel {
  graph: ModelFile;
  manifest?: object;
  files?: Record<string, string>;
}

/** Writes models into a repository, each as version 1. */
export async function writeModels(dir: string, models: Readonly<Record<string, MadeModel>>): Promise<void> {
  for (const [name, { files = {}, graph, manifest }] of Object.entries(models)) {
    const folder = join(dir, name, "1");
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, "model.onnx"), onnxFile(graph));
    for (const [file, text] of Object.entries(files)) await writeFile(join(folder, file), text);
    if (manifest !== undefined) await writeFile(join(dir, name, "model.json"), JSON.stringify(manifest));
  }
}

/** A stack that serves models made by the test. */
export async function startWithModels(
  models: Readonly<Record<string, MadeModel>>,
  { workers = 1, ...rest }: Partial<Parameters<typeof TestStack.start>[0]> = {},
): Promise<TestStack> {
  const stack = await TestStack.start({ models: [], workers: 0, ...rest });
  try {
    await writeModels(stack.modelsDir, models);
    await Promise.all(Array.from({ length: workers }, () => stack.startWorker()));
    return stack;
  } catch (fault) {
    await stack.close().catch(() => undefined);
    throw fault;
  }
}

/** A tensor in a test, with flat data. */
export interface GivenTensor {
  dtype: "float32" | "float64" | "float16" | "int32" | "int64" | "uint8" | "bool" | "string";
  dims: number[];
  data: (number | string | boolean)[];
}

export type Feeds = Record<string, GivenTensor>;

export const float32 = (dims: number[], data: number[]): GivenTensor => ({ dtype: "float32", dims, data });
export const int64 = (dims: number[], data: number[]): GivenTensor => ({ dtype: "int64", dims, data });

/** ONNX Runtime's own outputs for an input alone, computed without Millrace. */
export class Reference {
  readonly #session: InferenceSession;

  private constructor(session: InferenceSession) {
    this.#session = session;
  }

  static async open(graph: ModelFile): Promise<Reference> {
    const options = { intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 4 } as const;
    return new Reference(await InferenceSession.create(onnxFile(graph), options));
  }

  async run(feeds: Feeds): Promise<Feeds> {
    const tensors: Record<string, Tensor> = Object.create(null);
    for (const [name, given] of Object.entries(feeds)) tensors[name] = onnxTensor(given);
    const outputs = (await this.#session.run(tensors)) as unknown as Record<string, Tensor>;
    return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, givenTensor(tensor)]));
  }

  close(): Promise<void> {
    return this.#session.release();
  }
}

function onnxTensor({ data, dims, dtype }: GivenTensor): Tensor {
  switch (dtype) {
    case "string":
      return new Tensor("string", data as string[], dims);
    case "bool":
      return new Tensor("bool", Uint8Array.from(data, Number), dims);
    case "int64":
      return new Tensor(
        "int64",
        BigInt64Array.from(data, (value) => BigInt(value)),
        dims,
      );
    case "float16":
      return new Tensor("float16", Uint16Array.from(data as number[], toFloat16Bits) as never, dims);
    default: {
      const arrays = { float32: Float32Array, float64: Float64Array, int32: Int32Array, uint8: Uint8Array };
      return new Tensor(dtype, arrays[dtype].from(data as number[]) as never, dims);
    }
  }
}

function givenTensor({ data, dims, type }: Tensor): GivenTensor {
  const values = Array.from(data as ArrayLike<number | bigint | string>, (value) => {
    if (typeof value === "string") return value;
    if (type === "float16" && data instanceof Uint16Array) return fromFloat16Bits(value as number);
    return type === "bool" ? Boolean(value) : Number(value);
  });
  return { dtype: type as GivenTensor["dtype"], dims: [...dims], data: values };
}

/** Elements as nested arrays of JSON. */
export function nested({ data, dims }: GivenTensor): unknown {
  let level: unknown[] = data.map((value) =>
    typeof value === "number" && !Number.isFinite(value) ? `${value}` : value,
  );
  for (let d = dims.length - 1; d > 0; d--) {
    const length = dims[d] as number;
    const count = dims.slice(0, d).reduce((size, own) => size * own, 1);
    level = Array.from({ length: count }, (_, i) => level.slice(i * length, (i + 1) * length));
  }
  return dims.length === 0 ? level[0] : level;
}

/** An input or output in the form of `/v1`. */
export const asJson = (feeds: Feeds): Record<string, unknown> =>
  Object.fromEntries(Object.entries(feeds).map(([name, tensor]) => [name, nested(tensor)]));

/**
 * The difference of an output of `/v1` from the wanted one: another label, integer or shape, or a float that is off by
 * more than `tolerance` times the largest of its tensor. Null if there is none.
 */
export function differenceFrom(wanted: Feeds, output: unknown, tolerance = 1e-5): string | null {
  if (typeof output !== "object" || output === null) return `no output: ${JSON.stringify(output)}`;
  const given = output as Record<string, unknown>;
  if (Object.keys(given).sort().join() !== Object.keys(wanted).sort().join()) return `outputs ${Object.keys(given)}`;
  for (const [name, tensor] of Object.entries(wanted)) {
    const finite = tensor.data.filter((value): value is number => typeof value === "number" && Number.isFinite(value));
    const scale = finite.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    const fault = compare(nested(tensor), given[name], tensor.dtype.startsWith("float") ? tolerance * scale : 0);
    if (fault !== null) return `${name}${fault}`;
  }
  return null;
}

function compare(wanted: unknown, given: unknown, allowed: number): string | null {
  if (Array.isArray(wanted)) {
    if (!Array.isArray(given) || given.length !== wanted.length) return `: ${JSON.stringify(given)?.slice(0, 200)}`;
    for (const [i, own] of wanted.entries()) {
      const fault = compare(own, given[i], allowed);
      if (fault !== null) return `/${i}${fault}`;
    }
    return null;
  }
  const close = typeof wanted === "number" && typeof given === "number" && Math.abs(wanted - given) <= allowed;
  return close || Object.is(wanted, given) || wanted === given ? null : `: expected ${wanted}, got ${given}`;
}
