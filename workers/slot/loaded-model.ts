import { dirname, join } from "node:path";
import type { TensorSpec } from "@millrace/shared/announcement.js";
import { largestInlineBytes } from "@millrace/shared/blob.js";
import type { Manifest } from "@millrace/shared/manifest.js";
import { modelDigest } from "@millrace/shared/model-digest.js";
import { packerOf } from "@millrace/shared/pack-input.js";
import { rowsOf } from "@millrace/shared/pack-tensors.js";
import { tensorsText } from "@millrace/shared/packed-json.js";
import { type PackedTensor, packTensors, unpackTensors, wantsTensors } from "@millrace/shared/tensor-pack.js";
import { listVersionFiles } from "@millrace/shared/version-files.js";
import type { RunItem } from "../frames.js";
import type { LoadRequest } from "../load-request.js";
import { checkManifest } from "./describe-model.js";
import { type Engine, openEngine, type Tensors } from "./engine.js";
import { externalDataPaths, locationFault } from "./external-data.js";
import type { Head, HeadOutput } from "./head.js";
import { headOf } from "./heads.js";
import { toOnnxTensors } from "./onnx-tensors.js";
import { openPreparation } from "./open-preparation.js";
import { outputTensors } from "./pack-outputs.js";
import { InputRefusedError, type Preparation } from "./preparation.js";
import { declaresRows, rowsAreIndependent } from "./probe-joining.js";
import { checkSamples } from "./samples.js";
import { type TableWriter, tableWriter } from "./table-writer.js";

/** One input of a run, and whether its output is wanted as a pack. */
interface Input {
  tensors: PackedTensor[];
  packed: boolean;
}

/** No message of Protocol Buffers is larger; what a larger model is made of lies in external data. */
const largestOnnxBytes = 2 ** 31;

/** One model version in memory. Runs are one at a time; the caller sees to that. */
export class LoadedModel {
  readonly inputs: TensorSpec[];
  readonly outputs: TensorSpec[];
  /** Whether inputs are joined along their first dimension; turns false when an output shows that they cannot be. */
  joinable: boolean;
  readonly #engine: Engine;
  readonly #head: Head;
  readonly #manifest: Manifest;
  readonly #preparation: Preparation;

  private constructor(engine: Engine, preparation: Preparation, { manifest }: LoadRequest) {
    this.#engine = engine;
    this.#preparation = preparation;
    this.inputs = engine.inputs;
    this.outputs = engine.outputs;
    this.#manifest = manifest;
    this.#head = headOf(manifest);
    this.joinable = declaresRows(this.inputs, this.outputs) && manifest.batching.max_batch_rows > 1;
  }

  /** Loads, warms up and holds the model against its samples. Rejects with a reason that names no path. */
  static async load(request: LoadRequest): Promise<LoadedModel> {
    await checkFiles(request);
    const engine = await openEngine(request);
    try {
      checkManifest(request.manifest, engine.inputs, engine.outputs);
      const preparation = await openPreparation(request.manifest, engine.inputs, dirname(request.file));
      const model = new LoadedModel(engine, preparation, request);
      const samples = model.#packSamples(request);
      await checkSamples(request.manifest.samples, samples, (pack) => model.run([pack]));
      if (model.joinable) {
        const prepared = await Promise.all(samples.slice(0, 2).map((pack) => preparation.prepare(unpackTensors(pack))));
        model.joinable = await rowsAreIndependent(model.inputs, prepared, (t) => model.#onnxRun(t));
      }
      // Looked at again once they are read: what runs is what its digest names.
      if ((await modelDigest(request.folder)) !== request.digest) throw new Error("its files have changed");
      return model;
    } catch (fault) {
      await engine.close();
      throw fault;
    }
  }

  /** One item for each pack, in order; a pack that makes the run throw fails alone. Never rejects for an input. */
  async run(packs: readonly Buffer[]): Promise<RunItem[]> {
    const items: RunItem[] = new Array(packs.length);
    const readied: Input[] = [];
    const places: number[] = [];
    const begun = this.#preparation.atOnce === true ? packs.map((pack) => this.#begin(pack)) : [];
    for (const [i, pack] of packs.entries()) {
      const packed = wantsTensors(pack);
      const given = unpackTensors(pack);
      try {
        // Tensors are what the ONNX file takes; there is nothing to prepare about them.
        const prepared = packed ? given : (begun[i] ?? this.#preparation.prepare(given));
        // Most kinds need no waiting, and a turn of the event loop for each row would cost more than the row.
        readied.push({ tensors: prepared instanceof Promise ? await prepared : prepared, packed });
        places.push(i);
      } catch (fault) {
        if (!(fault instanceof InputRefusedError)) throw fault;
        items[i] = { ...failed(fault.message, 0, 1), refused: true };
      }
    }
    const inputs = this.joinable ? this.#aligned(readied) : readied;
    const ran: RunItem[] = new Array(inputs.length);
    for (let from = 0, to = 1; from < inputs.length; from = to, to = from + 1) {
      // Only inputs whose rows have the same shape make one tensor.
      const first = inputs[from] as Input;
      if (this.joinable) while (to < inputs.length && sameRows(first.tensors, (inputs[to] as Input).tensors)) to += 1;
      await this.#runJoined(inputs, ran, from, to);
    }
    for (const [k, i] of places.entries()) items[i] = ran[k] as RunItem;
    return items;
  }

  /** Begins to prepare an input; nobody has to wait for its fault. */
  #begin(pack: Buffer): Promise<PackedTensor[]> | undefined {
    if (wantsTensors(pack)) return undefined;
    const prepared = Promise.resolve(this.#preparation.prepare(unpackTensors(pack)));
    prepared.catch(() => undefined);
    return prepared;
  }

  /**
   * The outputs of one pack with many rows, as a chunk; a row that makes the run throw fails alone. A model whose rows
   * cannot be joined is run row by row.
   */
  async runTable(pack: Buffer): Promise<Buffer> {
    const [input] = (await this.#preparation.prepare(unpackTensors(pack))) as [PackedTensor];
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
    let outputs: Tensors;
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
    return this.#engine.close();
  }

  /** Runs inputs [from, to) as one; where that throws, its halves, down to the one that is to blame. */
  async #runJoined(inputs: readonly Input[], items: RunItem[], from: number, to: number): Promise<void> {
    const part = inputs.slice(from, to);
    const counts = part.map(({ tensors }) => rowsOf(tensors));
    const rows = counts.reduce((sum, count) => sum + count, 0);
    const begun = performance.now();
    let outputs: Tensors;
    try {
      outputs = await this.#onnxRun(part.map(({ tensors }) => tensors));
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
      const range = part.length === 1 ? null : ([row, row + count] as const);
      const read = part[i]?.packed ? this.#pack(outputs, range) : this.#head(outputs, range);
      items[from + i] =
        typeof read === "string"
          ? failed(read, inferenceMs, rows)
          : { ok: true, text: read.json, confidence: read.confidence, inferenceMs, batchRows: rows, pack: read.pack };
      row += count;
    });
  }

  /** The output tensors as a pack, and as JSON too while that is small. */
  #pack(outputs: Tensors, range: readonly [number, number] | null): HeadOutput {
    const names = this.outputs.map(({ name }) => name);
    const tensors = outputTensors(names, outputs, range);
    const pack = packTensors(tensors);
    const json = pack.length > largestInlineBytes ? "" : [...tensorsText(tensors)].join("");
    return { json, confidence: Number.NaN, pack };
  }

  /** What was prepared here is made alike; tensors that came as such stay as they are. */
  #aligned(inputs: readonly Input[]): readonly Input[] {
    const prepared = inputs.flatMap(({ packed, tensors }) => (packed ? [] : [tensors]));
    const aligned = this.#preparation.align(prepared).values();
    return inputs.map((input) =>
      input.packed ? input : { ...input, tensors: aligned.next().value as PackedTensor[] },
    );
  }

  async #onnxRun(inputs: readonly PackedTensor[][]): Promise<Tensors> {
    return this.#engine.run(toOnnxTensors(this.#preparation.align(inputs)));
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
async function checkFiles({ folder, manifest }: LoadRequest): Promise<void> {
  const files = await listVersionFiles(folder);
  const names = new Set(files.map(({ path }) => path));
  if (manifest.output.head !== "ensemble" && !names.has("model.onnx")) throw new Error("it has no model.onnx");
  for (const { path, size } of files) {
    if (!path.endsWith(".onnx")) continue;
    if (size > largestOnnxBytes) throw new Error(`${path} has more than ${largestOnnxBytes} bytes`);
    for (const location of readLocations(join(folder, path))) {
      const fault = locationFault(location, names);
      if (fault !== null) throw new Error(fault);
    }
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
