import { dirname } from "node:path";
import type { Joining } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";
import { modelDigest } from "@millrace/shared/models/model-digest.js";
import { rowsOf } from "@millrace/shared/packing/pack-tensors.js";
import { largestInlineBytes } from "@millrace/shared/redis/blob.js";
import { tensorsText } from "@millrace/shared/tensors/packed-json.js";
import { type PackedTensor, packTensors, unpackTensors, wantsTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { drawsNumbers } from "../graph/draws-numbers.js";
import type { Head, HeadOutput } from "../heads/head.js";
import { headOf } from "../heads/heads.js";
import { cutRows } from "../joining/cut-rows.js";
import { decideJoining } from "../joining/decide-joining.js";
import { isPaddingUnseen } from "../joining/try-padding.js";
import { openPreparation } from "../preparation/open-preparation.js";
import { InputRefusedError, type Preparation } from "../preparation/preparation.js";
import type { RunItem } from "../runs/frames.js";
import type { LoadedFacts, LoadOrder } from "../runs/load-request.js";
import { readOnnxFiles } from "./check-files.js";
import { checkHead } from "./check-head.js";
import { assertShapes, checkManifest } from "./describe-model.js";
import { type Engine, openEngine, type Tensors } from "./engine.js";
import { fedTogether, groupInputs, type Input, type PaddedRuns } from "./group-inputs.js";
import { outputTensors, toOnnxTensors } from "./onnx-tensors.js";
import { answerOf, failed, inferenceFault, rowsBetween } from "./run-items.js";
import { checkSamples, packSamples } from "./samples.js";
import { type TableWriter, tableWriter } from "./table-writer.js";
import { inputsToTry, isSample } from "./tried-inputs.js";

/** One model version in memory. Runs one at a time; the caller ensures it. */
export class LoadedModel {
  readonly facts: LoadedFacts;
  readonly #engine: Engine;
  readonly #head: Head;
  readonly #manifest: Manifest;
  readonly #padded: PaddedRuns | null;
  readonly #preparation: Preparation;
  #misfit: string | null = null;
  /** Runs of the model for the current request, and the callback for each but the first. */
  #runs = 0;
  #onNextRun: () => void = () => undefined;

  private constructor(parts: {
    engine: Engine;
    facts: LoadedFacts;
    head: Head;
    manifest: Manifest;
    padded: PaddedRuns | null;
    preparation: Preparation;
  }) {
    this.facts = parts.facts;
    this.#engine = parts.engine;
    this.#head = parts.head;
    this.#manifest = parts.manifest;
    this.#padded = parts.padded;
    this.#preparation = parts.preparation;
  }

  /**
   * Loads the model, warms it up, checks it against its head and its samples, and decides whether its inputs may share
   * runs. Rejects with a reason that names no path.
   */
  static async load(order: LoadOrder): Promise<LoadedModel> {
    const { manifest } = order;
    const models = await readOnnxFiles(order);
    const engine = await openEngine(order);
    try {
      for (const model of models.values()) assertShapes(model);
      checkManifest(manifest, engine.inputs, engine.outputs);
      const preparation = await openPreparation(manifest, engine.inputs, dirname(order.file));
      const head = headOf(manifest);
      const samples = packSamples(manifest, engine);
      const inputs = await inputsToTry(order, engine.inputs, samples, preparation);
      const run = (joined: readonly (readonly PackedTensor[])[]) => engine.run(toOnnxTensors(joined));
      const { triesMade } = order;
      const { joining, proofFault, tokenAxes } = await decideJoining({
        ...{ manifest, models, run, inputs, triesMade },
        specs: engine.inputs,
      });
      // With nothing known of the graph, made inputs are run only where the head can check the outputs.
      const shown = joining.mode === "off" && manifest.output.head === "raw" ? inputs.filter(isSample) : inputs;
      const outputs = await checkHead({ head, manifest, declared: engine.outputs, inputs: shown, run });
      const { padding } = preparation;
      const isPadded =
        padding !== null && tokenAxes !== null && (await isPaddingUnseen({ inputs, padding, tokenAxes, run }));
      const model = new LoadedModel({
        ...{ engine, head, manifest, preparation },
        padded: isPadded ? { padding, tokenAxes } : null,
        facts: {
          ...{ inputs: engine.inputs, outputs, proofFault },
          joining: joining.mode !== "off" && padsTexts(manifest) && !isPadded ? onlyEquallyLong(joining) : joining,
          drawsNumbers: [...models.values()].some(drawsNumbers),
        },
      });
      await checkSamples(manifest.samples, samples, (pack) => model.run([pack], false));
      // Compared again after reading, so that the loaded files are those of the digest.
      if ((await modelDigest(order.folder)) !== order.digest) throw new Error("its files have changed");
      return model;
    } catch (fault) {
      await engine.close();
      throw fault;
    }
  }

  /** Why runs are no longer shared: an output had another number of entries than the run had rows; else null. */
  get misfit(): string | null {
    return this.#misfit;
  }

  /**
   * One item for each pack, in order; a pack whose run throws fails alone. Never rejects for an input. Calls
   * `onNextRun` for each further run of the model for the same packs.
   */
  async run(packs: readonly Buffer[], joins: boolean, onNextRun = () => {}): Promise<RunItem[]> {
    this.#runs = 0;
    this.#onNextRun = onNextRun;
    const items: RunItem[] = new Array(packs.length);
    const readied: Input[] = [];
    const places: number[] = [];
    const begun = this.#preparation.atOnce === true ? packs.map((pack) => this.#begin(pack)) : [];
    for (const [i, pack] of packs.entries()) {
      const packed = wantsTensors(pack);
      const given = unpackTensors(pack);
      try {
        // Tensors are fed unchanged, except tabular ones, which may need derived columns.
        const isReady = packed && this.#manifest.kind !== "tabular";
        const prepared = isReady ? given : (begun[i] ?? this.#preparation.prepare(given));
        // Most kinds prepare synchronously; a turn of the event loop for each row would cost more than the row.
        const tensors = prepared instanceof Promise ? await prepared : prepared;
        readied.push({ tensors, packed });
        places.push(i);
      } catch (fault) {
        if (!(fault instanceof InputRefusedError)) throw fault;
        items[i] = { ...failed(fault.message, 0, 1), refused: true };
      }
    }
    const ran: RunItem[] = new Array(readied.length);
    for (const group of this.#mayJoin(joins)
      ? groupInputs(readied, this.#padded?.padding ?? null)
      : readied.map((_, i) => [i])) {
      await this.#runGroup(
        group.map((i) => readied[i] as Input),
        (at, item) => {
          ran[group[at] as number] = item;
        },
      );
    }
    for (const [k, i] of places.entries()) items[i] = ran[k] as RunItem;
    return items;
  }

  /** Begins to prepare an input; its rejection need not be handled by anyone. */
  #begin(pack: Buffer): Promise<PackedTensor[]> | undefined {
    if (wantsTensors(pack)) return undefined;
    const prepared = Promise.resolve(this.#preparation.prepare(unpackTensors(pack)));
    prepared.catch(() => undefined);
    return prepared;
  }

  /**
   * The outputs of one pack with many rows, as a chunk; a row whose run throws fails alone. A model whose rows cannot
   * be joined is run row by row.
   */
  async runTable(pack: Buffer, joins: boolean, onNextRun = () => {}): Promise<Buffer> {
    this.#runs = 0;
    this.#onNextRun = onNextRun;
    const [input] = (await this.#preparation.prepare(unpackTensors(pack))) as [PackedTensor];
    const writer = tableWriter(this.#manifest, this.#head);
    await this.#runRows(input, 0, input.shape[0] as number, joins, writer);
    return writer.finish();
  }

  close(): Promise<void> {
    return this.#engine.close();
  }

  #mayJoin(joins: boolean): boolean {
    return joins && this.facts.joining.mode !== "off" && this.#misfit === null;
  }

  async #runRows(input: PackedTensor, from: number, to: number, joins: boolean, writer: TableWriter): Promise<void> {
    const count = to - from;
    if (count > 1 && !this.#mayJoin(joins)) {
      for (let i = from; i < to; i++) await this.#runRows(input, i, i + 1, joins, writer);
      return;
    }
    let outputs: Tensors;
    try {
      outputs = await this.#onnxRun([[rowsBetween(input, from, to)]]);
    } catch (fault) {
      if (count === 1) return writer.fail(inferenceFault(fault as Error));
      const middle = from + (count >> 1);
      await this.#runRows(input, from, middle, joins, writer);
      await this.#runRows(input, middle, to, joins, writer);
      return;
    }
    if (count > 1 && !this.#fits(outputs, count)) return this.#runRows(input, from, to, joins, writer);
    writer.add(outputs, count);
  }

  /** Runs inputs as one; where the run throws, runs its halves, down to the single input at fault. */
  async #runGroup(part: readonly Input[], keep: (at: number, item: RunItem) => void, first = 0): Promise<void> {
    const counts = part.map(({ tensors }) => rowsOf(tensors));
    const rows = counts.reduce((sum, count) => sum + count, 0);
    const fed = fedTogether(part, this.#padded?.padding ?? null);
    const begun = performance.now();
    let outputs: Tensors;
    try {
      outputs = await this.#onnxRun(fed);
    } catch (fault) {
      if (part.length === 1)
        return keep(first, failed(inferenceFault(fault as Error), performance.now() - begun, rows));
      const middle = part.length >> 1;
      await this.#runGroup(part.slice(0, middle), keep, first);
      await this.#runGroup(part.slice(middle), keep, first + middle);
      return;
    }
    const inferenceMs = performance.now() - begun;
    if (part.length > 1 && !this.#fits(outputs, rows)) {
      for (const [i, input] of part.entries()) await this.#runGroup([input], keep, first + i);
      return;
    }
    let row = 0;
    for (const [i, input] of part.entries()) {
      const to = row + (counts[i] as number);
      const isPadded = fed[i] !== input.tensors;
      const read = this.#read(input, outputs, part.length === 1 ? null : [row, to], isPadded);
      const text = typeof read === "string" ? failed(read, inferenceMs, rows) : null;
      keep(
        first + i,
        text ?? { ok: true, ...answerOf(read as Exclude<HeadOutput, string>), inferenceMs, batchRows: rows },
      );
      row = to;
    }
  }

  /** Whether every output has one entry for each row of a run; if not, later runs are not shared. */
  #fits(outputs: Tensors, rows: number): boolean {
    for (const [name, { dims }] of Object.entries(outputs)) {
      if (dims[0] === rows) continue;
      this.#misfit = `output "${name}" had ${dims[0] ?? "no"} entries for ${rows} rows`;
      return false;
    }
    return true;
  }

  #read(
    { packed, tensors }: Input,
    outputs: Tensors,
    range: readonly [number, number] | null,
    isPadded: boolean,
  ): HeadOutput {
    if (isPadded && this.#padded !== null) {
      const { padding, tokenAxes } = this.#padded;
      const cut = { axesByOutput: tokenAxes, length: padding.lengthOf(tensors), padded: padding.side };
      return this.#head.read(cutRows(outputs, range ?? [0, rowsOf(tensors)], cut), null);
    }
    return packed ? this.#pack(outputs, range) : this.#head.read(outputs, range);
  }

  /**
   * Runs the model once. Calls `onNextRun` for each run after the first of a request, since each has its own time
   * limit.
   */
  #onnxRun(fed: readonly (readonly PackedTensor[])[]): Promise<Tensors> {
    if (this.#runs > 0) this.#onNextRun();
    this.#runs += 1;
    return this.#engine.run(toOnnxTensors(fed));
  }

  /** The output tensors as a pack, and as JSON too while it is small. */
  #pack(outputs: Tensors, range: readonly [number, number] | null): HeadOutput {
    const names = this.facts.outputs.map(({ name }) => name);
    const tensors = outputTensors(names, outputs, range);
    const pack = packTensors(tensors);
    const json = pack.length > largestInlineBytes ? "" : [...tensorsText(tensors)].join("");
    return { json, confidence: Number.NaN, pack };
  }
}

const padsTexts = (manifest: Manifest): boolean => manifest.kind === "text" && manifest.input.tokenizer !== undefined;

const onlyEquallyLong = ({ mode, reason }: Joining): Joining => ({
  mode,
  reason: `${reason}; only equally long texts share a run, since padding is not shown to leave answers unchanged`,
});
