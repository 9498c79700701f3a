import {
  type BulkChunk,
  decodeChunk,
  encodeChunk,
  faultlessOffsets,
  joinParts,
  type LineFault,
  longestDetail,
  splitParts,
  type UnencodedChunk,
} from "@millrace/shared/predictions/bulk-chunk.js";
import { expectLargeBuffers } from "@millrace/shared/redis/large-buffers.js";
import type { ChunkFinish } from "@millrace/shared/scripts/batches/finish-chunk.js";
import type { TakenChunk } from "@millrace/shared/scripts/batches/take-chunk.js";
import type { JobHistory } from "@millrace/shared/scripts/predictions/run-notes.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { type PackedTensor, packParts, packTensors, unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { DelayedError, WaitingError } from "bullmq";
import { z } from "zod";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import type { BulkWork, Dispatcher, Outcome } from "../runs/dispatcher.js";
import type { JobBreaker } from "./breaker.js";
import { deathsToBlame, otherVersionDelayMs, type ServedVersion } from "./process-prediction.js";
import type { RunNotebook } from "./run-notebook.js";

/** What of a BullMQ job is used here. */
export interface ChunkJob {
  id?: string | undefined;
  data: unknown;
  attemptsStarted: number;
  moveToDelayed(timestamp: number, token?: string): Promise<unknown>;
  moveToWait(token?: string): Promise<unknown>;
}

export interface ProcessChunkOptions {
  model: string;
  workerId: string;
  /** Runs that this worker has at a time. */
  slots: number;
  version(name: string): ServedVersion | undefined;
  /** Whether a version that is not here may be on another worker, or come back. */
  isKnown(version: string): Promise<boolean>;
  breaker(served: ServedVersion): JobBreaker;
  dispatcher: Pick<Dispatcher, "submit">;
  /** The chunk's version and inputs; null where its outputs are not wanted any more. */
  take(batch: string, number: number): Promise<TakenChunk | null>;
  /** The batch counts as started from now on. */
  begin(batch: string): Promise<void>;
  finish(finish: ChunkFinish): Promise<string>;
  notebook: Pick<RunNotebook, "note" | "noteLater" | "ended" | "forget">;
  history(id: string): Promise<JobHistory>;
  metrics: WorkerMetrics;
  log: Logger;
}

const chunkJobSchema = z.object({ v: z.literal(1), b: z.string(), n: z.int().min(0) });

/** The lines of a chunk that can be run: all of it, or a part of it after its whole killed a slot. */
interface Rows {
  count: number;
  /** Lines [from, to), as a slot is given them. */
  between(from: number, to: number): BulkWork;
  /** Whether they can be run in parts at will. */
  table: boolean;
}

/** Outputs of consecutive rows, or parts of them. */
interface Part {
  lines: number;
  form: "classes" | "json";
  width: number;
  bodies: Uint8Array[];
  faults: LineFault[];
}

/** Whether a chunk whose job ended with these words has its outputs in Redis. */
export const hasOutputs = (words: string): boolean => ["written", "ended batch", "done"].includes(words);

/** The slots went away before the chunk was done, or the version is out of order; nothing of it is kept. */
class ReleasedError extends Error {}

/**
 * The processor of a chunk's job. It runs as one; where that kills its slot it is tried again and then in halves, down to
 * the lines that are to blame. The outputs are written before BullMQ hears of the end, once, so that a chunk that is
 * handed out twice counts once.
 */
export function processChunk(options: ProcessChunkOptions) {
  const { dispatcher, history, metrics, model, notebook, workerId } = options;

  /** `lock`: the token that counts by the time of the end, which may be a later one. */
  return async (job: ChunkJob, token: string, lock = () => token): Promise<string> => {
    const jobId = job.id as string;
    const { b: batch, n: number } = chunkJobSchema.parse(job.data);
    const taken = await options.take(batch, number);
    if (taken === null) return "not wanted any more";
    const served = options.version(taken.version);
    const { version } = taken;
    if (served === undefined && (await options.isKnown(version))) {
      await job.moveToDelayed(Date.now() + otherVersionDelayMs, lock());
      throw new DelayedError();
    }
    const deaths = job.attemptsStarted > 1 ? (await history(jobId)).deaths : 0;
    expectLargeBuffers();
    const inputs = decodeChunk(taken.bytes);
    const rows = rowsOf(inputs);
    // Beside the run; what is not told now, another chunk's taker tells, or nobody needs to hear of it any more.
    if (!taken.begun) options.begin(batch).catch((error) => options.log.debug("a start was not told", { error }));
    if (served === undefined) {
      const gone = allFailed(rows.count, "version_gone", "the version was taken away before this was run");
      return finish(batch, number, version, lock(), inputs, gone);
    }
    const breaker = options.breaker(served);
    const admitted = breaker.admit(jobId);
    if (admitted === "wait") {
      await job.moveToDelayed(Date.now() + breaker.waitMs, lock());
      throw new DelayedError();
    }
    const submit = async (from: number, to: number, again: boolean): Promise<Outcome> => {
      const outcome = await dispatcher.submit({
        id: jobId,
        lane: served.lane,
        pack: Buffer.alloc(0),
        bulk: rows.between(from, to),
        rows: to - from,
        owner: "",
        priority: 0,
        signature: "",
        alone: true,
        onBegin(startedAt) {
          const note = { startedAt, attempt: deaths + 1, alone: true, worker: workerId, token: lock() };
          if (job.attemptsStarted > 1) void notebook.note(jobId, note, () => "");
          else notebook.noteLater(jobId, note, () => "");
        },
      });
      if (outcome.kind === "done in bulk") breaker.lived();
      if (outcome.kind !== "blamed") return outcome;
      const last = to - from === 1 && !again;
      const pays = await breaker.died({ id: jobId, owner: taken.owner, last });
      // What is not the inputs' fault is as if it had never run; but a probe goes on to its end, or it would never have one.
      return pays || admitted === "probe" ? outcome : { kind: "released" };
    };
    let part: Part;
    try {
      part =
        deaths >= deathsToBlame
          ? allFailed(rows.count, "poisoned", "whatever ran this part of the batch died, each time it was tried")
          : await runAll(submit, boundsOf(rows, admitted === "probe" ? 1 : options.slots, served.lane.joinable));
    } catch (fault) {
      if (!(fault instanceof ReleasedError)) throw fault;
      notebook.ended(jobId);
      await notebook.forget(jobId);
      await job.moveToWait(lock());
      throw new WaitingError();
    } finally {
      breaker.leftOff(jobId);
    }
    notebook.ended(jobId);
    return finish(batch, number, version, lock(), inputs, part);
  };

  async function finish(
    batch: string,
    number: number,
    version: string,
    token: string,
    inputs: BulkChunk,
    part: Part,
  ): Promise<string> {
    const { failedInputs, outputs } = merge(inputs, part);
    const failed = outputs.faults.length;
    const succeeded = outputs.lines - failed;
    const outcome = await options.finish({
      id: batch,
      number,
      token,
      outputs: encodeChunk(outputs),
      failedInputs: failedInputs === null ? null : encodeChunk(failedInputs),
      succeeded,
      failed,
    });
    if (outcome !== "written" && outcome !== "ended batch") return outcome;
    metrics.bulkRows.inc({ model, version, status: "succeeded" }, succeeded);
    metrics.bulkRows.inc({ model, version, status: "failed" }, failed);
    if (outcome === "ended batch") options.log.info("batch finished", { batch_id: batch, model, version });
    return outcome;
  }

  /** Runs the rows between bounds side by side; throws a ReleasedError, when no part runs any more, where one is to be given back. */
  async function runAll(
    submit: (from: number, to: number, again: boolean) => Promise<Outcome>,
    bounds: readonly number[],
  ): Promise<Part> {
    const runs = bounds.slice(1).map((to, i) => runRows(submit, bounds[i] as number, to, true));
    const parts = await Promise.allSettled(runs);
    for (const part of parts) if (part.status === "rejected") throw part.reason;
    return (await Promise.all(runs)).reduce(joinTwo);
  }

  /** Runs rows [from, to); throws a ReleasedError when they are to be given back. */
  async function runRows(
    submit: (from: number, to: number, again: boolean) => Promise<Outcome>,
    from: number,
    to: number,
    again: boolean,
  ): Promise<Part> {
    if (from === to) return allFailed(0, "", "");
    const outcome = await submit(from, to, again);
    if (outcome.kind === "done in bulk")
      return outcome.table === null ? fromItems(outcome.items) : fromTable(outcome.table);
    if (outcome.kind !== "blamed") throw new ReleasedError();
    metrics.retries.inc({ model, code: outcome.code });
    if (again) return runRows(submit, from, to, false);
    if (to - from === 1) {
      const late = outcome.code === "timeout";
      return allFailed(1, outcome.code, late ? "the run took too long" : "the process that ran this input died");
    }
    const middle = from + ((to - from) >> 1);
    const first = await runRows(submit, from, middle, false);
    return joinTwo(first, await runRows(submit, middle, to, false));
  }
}

function rowsOf({ body, faults, form, lines }: BulkChunk): Rows {
  const count = lines - faults.length;
  if (form === "packs") {
    const packs = splitParts(body);
    return { count, between: (from, to) => ({ packs: packs.slice(from, to) }), table: false };
  }
  if (count === 0) return { count, between: () => ({ packs: [] }), table: true };
  const [{ bytes, dtype, name, shape }] = unpackTensors(Buffer.from(body.buffer, body.byteOffset, body.byteLength)) as [
    PackedTensor,
  ];
  const stride = bytes.length / count;
  const between = (from: number, to: number) => {
    const part = bytes.subarray(from * stride, to * stride);
    return { table: packParts({ name, dtype, shape: [to - from, ...shape.slice(1)], bytes: part }) };
  };
  return { count, between, table: true };
}

/** Rows of one run at the most, so that whoever waits for the slot waits no longer than that takes; and at the least. */
const mostRunRows = 1024;
const leastRunRows = 128;

/** Rows that a slot is given at a time of a version that runs each of them alone. */
const mostAloneRows = 32;

/** Where the runs of a chunk begin, and its end: as many as keep every slot busy, unless they would be tiny. */
function boundsOf({ count, table }: Rows, slots: number, joinable: boolean): number[] {
  const runs = !joinable
    ? Math.max(Math.ceil(count / mostAloneRows), 1)
    : table
      ? Math.max(Math.ceil(count / mostRunRows), Math.min(slots, Math.floor(count / leastRunRows)), 1)
      : 1;
  return Array.from({ length: runs + 1 }, (_, i) => Math.floor((i * count) / runs));
}

const allFailed = (count: number, code: string, detail: string): Part => ({
  lines: count,
  form: "json",
  width: 0,
  bodies: [],
  faults: Array.from({ length: count }, (_, offset) => ({ offset, code, detail })),
});

function fromItems(items: Extract<Outcome, { kind: "done in bulk" }>["items"]): Part {
  const faults: LineFault[] = [];
  const texts: Buffer[] = [];
  items.forEach((item, offset) => {
    if (item.ok) texts.push(Buffer.from(item.text));
    else {
      const code = item.refused ? "invalid_input" : "inference_failed";
      faults.push({ offset, code, detail: item.text.slice(0, longestDetail) });
    }
  });
  return { lines: items.length, form: "json", width: 0, bodies: [joinParts(texts)], faults };
}

function fromTable(table: Buffer): Part {
  const { body, faults, form, lines, width } = decodeChunk(table);
  return { lines, form: form as Part["form"], width, bodies: [body], faults: [...faults] };
}

function joinTwo(a: Part, b: Part): Part {
  // A part without outputs says nothing of their form.
  const { form, width } = a.lines > a.faults.length ? a : b;
  const faults = [...a.faults, ...b.faults.map((fault) => ({ ...fault, offset: fault.offset + a.lines }))];
  return { lines: a.lines + b.lines, form, width, bodies: [...a.bodies, ...b.bodies], faults };
}

/** The outputs of all lines of a chunk, and the inputs of those that failed, or null where none did. */
function merge(inputs: BulkChunk, part: Part): { outputs: UnencodedChunk; failedInputs: BulkChunk | null } {
  const offsets = faultlessOffsets(inputs);
  const ranFaults = part.faults.map((fault) => ({ ...fault, offset: offsets[fault.offset] as number }));
  const faults = [...inputs.faults, ...ranFaults].sort((a, b) => a.offset - b.offset);
  const { lines, origins, start } = inputs;
  const { form, width } = part;
  const outputs = { start, lines, faults, origins, form, width, body: part.bodies };
  if (faults.length === 0) return { outputs, failedInputs: null };
  return { outputs, failedInputs: failedOf(inputs, faults, new Set(part.faults.map(({ offset }) => offset))) };
}

/** Lines that failed, as a chunk of another batch: those that were never valid stay what they are. */
function failedOf(inputs: BulkChunk, faults: readonly LineFault[], ranRows: ReadonlySet<number>): BulkChunk {
  const never = new Set(inputs.faults.map(({ offset }) => offset));
  const kept = faults.flatMap((fault, offset) => (never.has(fault.offset) ? [{ ...fault, offset }] : []));
  const origins = Uint32Array.from(faults, ({ offset }) => inputs.origins?.[offset] ?? inputs.start + offset);
  const rows = [...ranRows].sort((a, b) => a - b);
  const body = bodyOf(inputs, rows);
  return { start: 0, lines: faults.length, faults: kept, origins, form: inputs.form, width: 0, body };
}

function bodyOf({ body, form }: BulkChunk, rows: readonly number[]): Buffer {
  if (rows.length === 0) return Buffer.alloc(0);
  if (form === "packs") {
    const packs = splitParts(body);
    return joinParts(rows.map((row) => packs[row] as Buffer));
  }
  const whole = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  const [{ bytes, dtype, name, shape }] = unpackTensors(whole) as [PackedTensor];
  const stride = bytes.length / (shape[0] as number);
  const picked = Buffer.concat(rows.map((row) => bytes.subarray(row * stride, (row + 1) * stride)));
  return packTensors([{ name, dtype, shape: [rows.length, ...shape.slice(1)], bytes: picked }]);
}
