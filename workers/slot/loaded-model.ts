import type { TensorSpec } from "@millrace/shared/announcement.js";
import type { Manifest } from "@millrace/shared/manifest.js";
import { modelDigest } from "@millrace/shared/model-digest.js";
import { packerOf } from "@millrace/shared/pack-input.js";
import { rowsOf } from "@millrace/shared/pack-tensors.js";
import { type PackedTensor, unpackTensors } from "@millrace/shared/tensor-pack.js";
import { listVersionFiles } from "@millrace/shared/version-files.js";
import { InferenceSession, type Tensor } from "onnxruntime-node";
import type { RunItem } from "../frames.js";
import type { LoadRequest } from "../load-request.js";
import { checkManifest, describeTensors } from "./describe-model.js";
import { externalDataPaths, locationFault } from "./external-data.js";
import { type Head, headOf } from "./heads.js";
import { toOnnxTensors } from "./onnx-tensors.js";
import { declaresRows, rowsAreIndependent } from "./probe-joining.js";
import { checkSamples } from "./samples.js";
import { type TableWriter, tableWriter } from "./table-writer.js";

type Outputs = Readonly<Record<string, Tensor>>;

/** No message of Protocol Buffers is larger; what a larger model is made of lies in external data. */
const largestOnnxBytes = 2 ** 31;

/** One model version in memory. Runs are one at a time; the caller sees to that. */
export class LoadedModel {
  readonly inputs: TensorSpec[];
  readonly outputs: TensorSpec[];
  /** Whether inputs are joined along their first dimension; turns false when an output shows that they cannot be. */
  joinable: boolean;
  readonly #session: InferenceSession;
  readonly #head: Head;
  readonly #manifest: Manifest;

  private constructor(session: InferenceSession, request: LoadRequest) {
    this.#session = session;
    this.inputs = describeTensors(session.inputMetadata, "input");
    this.outputs = describeTensors(session.outputMetadata, "output");
    checkManifest(request.manifest, this.inputs, this.outputs);
    this.#manifest = request.manifest;
    this.#head = headOf(request.manifest);
    this.joinable = declaresRows(this.inputs, this.outputs) && request.manifest.batching.max_batch_rows > 1;
  }

  /** Loads, warms up and holds the model against its samples. Rejects with a reason that names no path. */
  static async load(request: LoadRequest): Promise<LoadedModel> {
    await checkFiles(request);
    const session = await InferenceSession.create(request.file, {
      intraOpNumThreads: 1,
      interOpNumThreads: 1,
      executionMode: "sequential",
      logSeverityLevel: 4,
    }).catch((fault: Error) => {
      throw new Error(`the ONNX file cannot be loaded: ${fault.message.replaceAll(request.file, "model.onnx")}`);
    });
    try {
      const model = new LoadedModel(session, request);
      const samples = model.#packSamples(request);
      await checkSamples(request.manifest.samples, samples, (pack) => model.run([pack]));
      if (model.joinable) model.joinable = await rowsAreIndependent(model.inputs, samples, (t) => model.#onnxRun(t));
      // Looked at again once they are read: what runs is what its digest names.
      if ((await modelDigest(request.folder)) !== request.digest) throw new Error("its files have changed");
      return model;
    } catch (fault) {
      await session.release();
      throw fault;
    }
  }

  /** One item for each pack, in order; a pack that makes the run throw fails alone. Never rejects for an input. */
  async run(packs: readonly Buffer[]): Promise<RunItem[]> {
    const inputs = packs.map(unpackTensors);
    const items: RunItem[] = new Array(inputs.length);
    for (let from = 0, to = 1; from < inputs.length; from = to, to = from + 1) {
      // Only inputs whose rows have the same shape make one tensor.
      const first = inputs[from] as PackedTensor[];
      if (this.joinable) while (to < inputs.length && sameRows(first, inputs[to] as PackedTensor[])) to += 1;
      await this.#runJoined(inputs, items, from, to);
    }
    return items;
  }

  /**
   * The outputs of one pack with many rows, as a chunk; a row that makes the run throw fails alone. A model whose rows
   * cannot be joined is run row by row.
   */
  async runTable(pack: Buffer): Promise<Buffer> {
    const [input] = unpackTensors(pack) as [PackedTensor];
    const writer = tableWriter(this.#manifest, this.#head);
    await this.#runRows(input, 0, input.shape[0] as number, writer);
    return writer.finish();
  }

  async #runRows(input: PackedTensor, from: number, to: number, writer: TableWriter): Promise<void> {
    const count = to - from;
    if (!this.joinable && count > 1) {
      for (let i = from; i < to; i++) await this.#runRows(input, i, i + 1, writer);
      return;
    }
    let outputs: Outputs;
    try {
      outputs = await this.#onnxRun([[rowsBetween(input, from, to)]]);
    } catch (fault) {
      if (count === 1) return writer.fail(inferenceFault(fault as Error));
      const middle = from + (count >> 1);
      await this.#runRows(input, from, middle, writer);
      await this.#runRows(input, middle, to, writer);
      return;
    }
    if (count > 1 && !Object.values(outputs).every((tensor) => tensor.dims[0] === count)) {
      this.joinable = false;
      return this.#runRows(input, from, to, writer);
    }
    writer.add(outputs, count);
  }

  close(): Promise<void> {
    return this.#session.release();
  }

  /** Runs inputs [from, to) as one; where that throws, its halves, down to the one that is to blame. */
  async #runJoined(inputs: PackedTensor[][], items: RunItem[], from: number, to: number): Promise<void> {
    const part = inputs.slice(from, to);
    const counts = part.map(rowsOf);
    const rows = counts.reduce((sum, count) => sum + count, 0);
    const begun = performance.now();
    let outputs: Outputs;
    try {
      outputs = await this.#onnxRun(part);
    } catch (fault) {
      if (part.length === 1) {
        items[from] = failed(inferenceFault(fault as Error), performance.now() - begun, rows);
        return;
      }
      const middle = from + (part.length >> 1);
      await this.#runJoined(inputs, items, from, middle);
      await this.#runJoined(inputs, items, middle, to);
      return;
    }
    const inferenceMs = performance.now() - begun;
    if (part.length > 1 && !Object.values(outputs).every((tensor) => tensor.dims[0] === rows)) {
      this.joinable = false;
      for (let i = from; i < to; i++) await this.#runJoined(inputs, items, i, i + 1);
      return;
    }
    let row = 0;
    counts.forEach((count, i) => {
      items[from + i] = this.#read(outputs, part.length === 1 ? null : [row, row + count], inferenceMs, rows);
      row += count;
    });
  }

  #read(outputs: Outputs, range: readonly [number, number] | null, inferenceMs: number, batchRows: number): RunItem {
    const read = this.#head(outputs, range);
    if (typeof read === "string") return failed(read, inferenceMs, batchRows);
    return { ok: true, text: read.json, confidence: read.confidence, inferenceMs, batchRows };
  }

  async #onnxRun(inputs: readonly PackedTensor[][]): Promise<Outputs> {
    return (await this.#session.run(toOnnxTensors(inputs))) as unknown as Outputs;
  }

  #packSamples(request: LoadRequest): Buffer[] {
    const packer = packerOf({ manifest: request.manifest, inputs: this.inputs });
    return request.manifest.samples.map((sample, i) => {
      const packed = packer(sample.input);
      if ("pack" in packed) return packed.pack;
      const [first] = packed.complaints;
      throw new Error(`sample ${sample.name ?? i} is no valid input: ${first?.detail}`);
    });
  }
}

/** Whether two inputs differ in their number of rows at the most. */
function sameRows(a: readonly PackedTensor[], b: readonly PackedTensor[]): boolean {
  return a.every(({ shape }, t) => {
    const other = (b[t] as PackedTensor).shape;
    return shape.length === other.length && shape.every((length, d) => d === 0 || length === other[d]);
  });
}

/** Rows [from, to) of a tensor [rows, …], as a view. */
function rowsBetween({ bytes, dtype, name, shape }: PackedTensor, from: number, to: number): PackedTensor {
  const stride = bytes.length / (shape[0] as number);
  return { name, dtype, shape: [to - from, ...shape.slice(1)], bytes: bytes.subarray(from * stride, to * stride) };
}

/** Throws where the ONNX file is too large to be one, or its external data are not the version's own. */
async function checkFiles({ file, folder }: LoadRequest): Promise<void> {
  const files = await listVersionFiles(folder);
  const model = files.find(({ path }) => path === "model.onnx");
  if (model === undefined) throw new Error("it has no model.onnx");
  if (model.size > largestOnnxBytes) throw new Error(`model.onnx has more than ${largestOnnxBytes} bytes`);
  const names = new Set(files.map(({ path }) => path));
  for (const location of readLocations(file)) {
    const fault = locationFault(location, names);
    if (fault !== null) throw new Error(fault);
  }
}

function readLocations(file: string): string[] {
  try {
    return externalDataPaths(file);
  } catch (fault) {
    throw new Error(`the ONNX file cannot be loaded: ${(fault as Error).message}`);
  }
}

const failed = (text: string, inferenceMs: number, batchRows: number): RunItem => ({
  ok: false,
  text,
  confidence: Number.NaN,
  inferenceMs,
  batchRows,
});

/** What ONNX Runtime says of a run that threw, without the node's place in the file. */
function inferenceFault(fault: Error): string {
  const status = /Status Message: (.*)$/s.exec(fault.message)?.[1] ?? fault.message;
  return `the model cannot run this input: ${status.replaceAll(/\/\S+/g, "").trim().slice(0, 500)}`;
}
