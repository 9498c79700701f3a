import {
  type BulkChunk,
  decodeChunk,
  encodeChunk,
  joinParts,
  splitParts,
} from "@millrace/shared/predictions/bulk-chunk.js";
import { addFault, faultlessOffsets, type LineFault } from "@millrace/shared/predictions/line-faults.js";
import type { ChunkFinish } from "@millrace/shared/scripts/batches/finish-chunk.js";
import { openLog } from "@millrace/shared/service/log.js";
import { packTensors, unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import type { JobBreaker } from "@millrace/workers/jobs/job-breaker.js";
import { processChunk } from "@millrace/workers/jobs/process-chunk.js";
import { createWorkerMetrics } from "@millrace/workers/monitoring/metrics.js";
import type { Outcome, Work } from "@millrace/workers/runs/work.js";
import { DelayedError, WaitingError } from "bullmq";
import { describe, expect, test } from "vitest";
import { random } from "../support/random.js";
import { machineClock } from "../support/redis/machine-clock.js";

const runQueue = {
  model: "m",
  version: "1",
  modelKey: 0,
  joinable: true,
  maxBatchRows: 64,
  maxDelayMs: 0,
  timeoutMs: 1000,
};

/** Inputs of a chunk, one number a row; null: an invalid line. */
type Inputs = readonly (number | null)[];

function chunkOf(form: "table" | "packs", inputs: Inputs, rest: Partial<BulkChunk> = {}): Buffer {
  const values = inputs.filter((value) => value !== null);
  const packOf = (numbers: readonly number[]) =>
    packTensors([
      {
        name: "x",
        dtype: "float32",
        shape: [numbers.length, 1],
        bytes: new Uint8Array(Float32Array.from(numbers).buffer),
      },
    ]);
  const body =
    form === "packs"
      ? joinParts(values.map((value) => packOf([value])))
      : values.length === 0
        ? Buffer.alloc(0)
        : packOf(values);
  const faults: LineFault[] = [];
  for (const [offset, value] of inputs.entries()) {
    if (value === null) addFault(faults, offset, "invalid_input", "never valid");
  }
  return encodeChunk({ start: 100, lines: inputs.length, faults, origins: null, form, width: 0, body, ...rest });
}

const numbersIn = (pack: Uint8Array): number[] => {
  const [tensor] = unpackTensors(Buffer.from(pack));
  return [...new Float32Array(Uint8Array.from(tensor?.bytes as Uint8Array).buffer)];
};

/** Inputs of a chunk of failed lines, in order. */
function inputsOf(chunk: BulkChunk): (number | null)[] {
  const inputs: (number | null)[] = new Array(chunk.lines).fill(null);
  const offsets = faultlessOffsets(chunk);
  const values =
    offsets.length === 0
      ? []
      : chunk.form === "packs"
        ? splitParts(chunk.body).flatMap(numbersIn)
        : numbersIn(chunk.body);
  expect(values).toHaveLength(offsets.length);
  for (const [i, offset] of offsets.entries()) inputs[offset] = values[i] as number;
  return inputs;
}

const closed: JobBreaker = {
  admit: () => "run",
  waitMs: 1000,
  recordSuccess: () => undefined,
  abandonProbe: () => undefined,
  recordDeath: async () => true,
};

interface Behaviour {
  /** Whether a run with this value kills its slot. */
  kills?(value: number): boolean;
  /** Whether this value's row throws. */
  throws?(value: number): boolean;
  /** Runs, by number from 0, that are killed although none of their rows is the cause. */
  killedRuns?: readonly number[];
  released?: boolean;
  late?: boolean;
  deaths?: number;
  attemptsStarted?: number;
  slots?: number;
  maxBatchRows?: number;
  version?: string;
  finish?: string;
  breaker?: JobBreaker;
}

/** Runs the processor with slots of that behaviour; `runs` has their inputs. */
async function run(form: "table" | "packs", chunk: Buffer | null, behaviour: Behaviour = {}) {
  const runs: number[][] = [];
  const calls: string[] = [];
  let finish: ChunkFinish | undefined;
  const submit = async (work: Work): Promise<Outcome> => {
    const bulk = work.bulk as NonNullable<Work["bulk"]>;
    const table = "table" in bulk;
    expect(table).toBe(form === "table");
    work.onBegin(Date.now(), true);
    const values = table ? numbersIn(Buffer.concat(bulk.table)) : bulk.packs.flatMap(numbersIn);
    expect(work.rows).toBe(values.length);
    const number = runs.push(values) - 1;
    if (behaviour.released) return { kind: "released" };
    if (behaviour.killedRuns?.includes(number) || values.some((value) => behaviour.kills?.(value))) {
      return { kind: "blamed", code: behaviour.late ? "timeout" : "poisoned" };
    }
    const threw = (value: number) => behaviour.throws?.(value) ?? false;
    if (!table) {
      const items = values.map((value) => ({
        ok: !threw(value),
        text: threw(value) ? "it threw" : `{"y":${value}}`,
        confidence: Number.NaN,
        inferenceMs: 1,
        batchRows: 1,
      }));
      return { kind: "done in bulk", items, table: null };
    }
    const records = values
      .filter((value) => !threw(value))
      .map((value) => {
        const record = Buffer.alloc(2 + 8);
        record.writeUInt16LE(value % 2, 0);
        record.writeFloatLE(value, 2);
        record.writeFloatLE(-value, 6);
        return record;
      });
    const faults: LineFault[] = [];
    for (const [offset, value] of values.entries()) {
      if (threw(value)) addFault(faults, offset, "inference_failed", "it threw");
    }
    const reply = { start: 0, lines: values.length, faults, origins: null, form: "classes" as const, width: 2 };
    return { kind: "done in bulk", items: [], table: encodeChunk({ ...reply, body: Buffer.concat(records) }) };
  };
  const metrics = createWorkerMetrics();
  const process = processChunk({
    model: "m",
    clock: machineClock,
    workerId: "w",
    slots: behaviour.slots ?? 1,
    version: (name) =>
      name === "1"
        ? {
            model: "m",
            version: "1",
            digest: "d",
            uniform: true,
            attempts: 1,
            cacheTtlSeconds: 0,
            runQueue: { ...runQueue, maxBatchRows: behaviour.maxBatchRows ?? runQueue.maxBatchRows },
          }
        : undefined,
    isKnown: async (name) => name !== "gone",
    onStored: () => undefined,
    breaker: () => behaviour.breaker ?? closed,
    dispatcher: { submit },
    take: async (batch, number) => {
      expect([batch, number]).toEqual(["b", 7]);
      return chunk === null ? null : { version: behaviour.version ?? "1", owner: "alice", begun: false, bytes: chunk };
    },
    begin: async (batch) => {
      expect(batch).toBe("b");
    },
    finish: async (written) => {
      finish = written;
      return behaviour.finish ?? "written";
    },
    notebook: {
      note: async () => void calls.push("note"),
      noteLater: () => void calls.push("note later"),
      ended: () => void calls.push("ended"),
      forget: async () => void calls.push("forget"),
    },
    history: async () => ({ final: false, diedRunning: true, deaths: behaviour.deaths ?? 0 }),
    metrics,
    log: openLog("worker", "error"),
  });
  const job = {
    id: "b-7",
    data: { v: 1, b: "b", n: 7 },
    attemptsStarted: behaviour.attemptsStarted ?? 1,
    moveToDelayed: async () => calls.push("delayed"),
    moveToWait: async () => calls.push("wait"),
  };
  const answer = await process(job, "token").catch((fault: Error) => fault);
  const { values } = await metrics.failures.get();
  const counted = values.filter(({ labels, value }) => labels.work === "row" && value > 0);
  const failures = Object.fromEntries(counted.map(({ labels, value }) => [labels.code, value]));
  return { answer, runs, calls, finish, failures };
}

/** The outputs by line: a number, or the code of a fault. */
function outputsOf(finish: ChunkFinish | undefined): (number | string)[] {
  const chunk = decodeChunk(finish?.outputs as Buffer);
  const outputs: (number | string)[] = new Array(chunk.lines).fill("missing");
  for (const { code, count, offset } of chunk.faults) outputs.fill(code, offset, offset + count);
  const offsets = faultlessOffsets(chunk);
  const body = Buffer.from(chunk.body);
  const texts = chunk.form === "json" ? splitParts(body).map(String) : null;
  if (texts === null) expect(body).toHaveLength(10 * offsets.length);
  else expect(texts).toHaveLength(offsets.length);
  for (const [i, offset] of offsets.entries()) {
    outputs[offset] = texts === null ? body.readFloatLE(10 * i + 2) : JSON.parse(texts[i] as string).y;
  }
  return outputs;
}

test("a chunk of inputs that are packed one by one runs at most max_batch_rows of them at a time", async () => {
  const chunk = chunkOf("packs", [0, 1, 2, null, 3, 4, 5, 6, 7]);
  const { finish, runs } = await run("packs", chunk, { maxBatchRows: 3 });
  expect(runs).toEqual([
    [0, 1],
    [2, 3, 4],
    [5, 6, 7],
  ]);
  expect(outputsOf(finish)).toEqual([0, 1, 2, "invalid_input", 3, 4, 5, 6, 7]);
});

describe.each(["table", "packs"] as const)("a chunk in the form of %s", (form) => {
  const eight = [0, 1, 2, 3, 4, 5, 6, 7];

  test("runs once as a whole, and its outputs are written in order", async () => {
    const { answer, finish, runs, calls } = await run(form, chunkOf(form, eight));
    expect(answer).toBe("written");
    expect(runs).toEqual([eight]);
    expect(calls).toEqual(["note later", "ended"]);
    expect(outputsOf(finish)).toEqual(eight);
    expect(finish).toMatchObject({ id: "b", number: 7, token: "token", succeeded: 8, failed: 0, failedInputs: null });
  });

  test("whose slot was killed for another reason runs again as a whole", async () => {
    const { finish, runs } = await run(form, chunkOf(form, eight), { killedRuns: [0] });
    expect(runs).toEqual([eight, eight]);
    expect(outputsOf(finish)).toEqual(eight);
  });

  test("whose slot died by the version's fault returns to the queue whole, without partial outputs", async () => {
    const recordDeath = async () => false;
    const { answer, finish, runs, calls } = await run(form, chunkOf(form, eight), {
      ...{ killedRuns: [0], breaker: { ...closed, recordDeath } },
    });
    expect([answer, finish, runs]).toEqual([expect.any(WaitingError), undefined, [eight]]);
    expect(calls.slice(-2)).toEqual(["forget", "wait"]);
  });

  test("that is a version's probe continues down to the faulty row, although the breaker opens again", async () => {
    const owners: string[] = [];
    const breaker: JobBreaker = {
      ...closed,
      admit: () => "probe",
      recordDeath: async ({ owner }) => owners.push(owner) === 1,
    };
    const { finish } = await run(form, chunkOf(form, eight), { kills: (value) => value === 5, breaker });
    expect(outputsOf(finish)).toEqual([0, 1, 2, 3, 4, "poisoned", 6, 7]);
    expect(new Set(owners)).toEqual(new Set(["alice"]));
  });

  test("of a version with an open breaker is delayed, and not begun", async () => {
    const { answer, runs, calls } = await run(form, chunkOf(form, eight), {
      breaker: { ...closed, admit: () => "wait" },
    });
    expect([answer, runs, calls]).toEqual([expect.any(DelayedError), [], ["delayed"]]);
  });

  test.each([false, true])("that kills its slot is halved down to the faulty row (by timeout: %s)", async (late) => {
    const { finish, runs } = await run(form, chunkOf(form, eight), { kills: (value) => value === 5, late });
    expect(runs).toEqual([eight, eight, [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]);
    const code = late ? "timeout" : "poisoned";
    expect(outputsOf(finish)).toEqual([0, 1, 2, 3, 4, code, 6, 7]);
    expect(finish).toMatchObject({ succeeded: 7, failed: 1 });
    const failed = decodeChunk(finish?.failedInputs as Buffer);
    expect(inputsOf(failed)).toEqual([5]);
    expect([...(failed.origins as Uint32Array)]).toEqual([105]);
  });

  test("with faults of any kind gives each line its own, and counts it, 100 at random", async () => {
    const r = random(11);
    for (let round = 0; round < 100; round++) {
      let value = 0;
      const inputs: Inputs = Array.from({ length: 1 + r.below(20) }, () => (r.below(4) === 0 ? null : value++));
      const killing = new Set(Array.from({ length: r.below(4) }, () => r.below(20)));
      const throwing = new Set(Array.from({ length: r.below(4) }, () => r.below(20)));
      const origins = r.below(2) === 0 ? null : Uint32Array.from(inputs, (_, i) => 1000 + 3 * i);
      const { failures, finish } = await run(form, chunkOf(form, inputs, { origins }), {
        kills: (row) => killing.has(row),
        throws: (row) => throwing.has(row),
      });
      const wanted = inputs.map((row) => {
        if (row === null) return "invalid_input";
        return killing.has(row) ? "poisoned" : throwing.has(row) ? "inference_failed" : row;
      });
      expect(outputsOf(finish)).toEqual(wanted);
      const bad = wanted.flatMap((output, i) => (typeof output === "string" ? [i] : []));
      expect(finish).toMatchObject({ succeeded: inputs.length - bad.length, failed: bad.length });
      const codes = bad.map((i) => wanted[i] as string);
      expect(failures).toEqual(Object.fromEntries(codes.map((code) => [code, codes.filter((c) => c === code).length])));
      const outputs = decodeChunk(finish?.outputs as Buffer);
      expect([outputs.start, outputs.origins]).toEqual([100, origins]);
      if (bad.length === 0) {
        expect(finish?.failedInputs).toBeNull();
        continue;
      }
      const failed = decodeChunk(finish?.failedInputs as Buffer);
      expect(inputsOf(failed)).toEqual(bad.map((i) => inputs[i]));
      expect([...(failed.origins as Uint32Array)]).toEqual(bad.map((i) => origins?.[i] ?? 100 + i));
    }
  });

  test("of only faulty lines runs nothing", async () => {
    const { finish, runs } = await run(form, chunkOf(form, [null, null]));
    expect(runs).toEqual([]);
    expect(outputsOf(finish)).toEqual(["invalid_input", "invalid_input"]);
    expect(inputsOf(decodeChunk(finish?.failedInputs as Buffer))).toEqual([null, null]);
  });

  test("that was the only running job at ten worker deaths fails as poisoned without an eleventh run", async () => {
    const nine = await run(form, chunkOf(form, [1, null, 2]), { attemptsStarted: 10, deaths: 9 });
    expect(nine.calls).toEqual(["note", "ended"]);
    expect(outputsOf(nine.finish)).toEqual([1, "invalid_input", 2]);
    const ten = await run(form, chunkOf(form, [1, null, 2]), { attemptsStarted: 11, deaths: 10 });
    expect(ten.runs).toEqual([]);
    expect(outputsOf(ten.finish)).toEqual(["poisoned", "invalid_input", "poisoned"]);
    expect(inputsOf(decodeChunk(ten.finish?.failedInputs as Buffer))).toEqual([1, null, 2]);
  });

  test("returns to the queue when its worker ends, waits for its version, and ends if no longer wanted", async () => {
    const released = await run(form, chunkOf(form, eight), { released: true });
    expect(released.answer).toBeInstanceOf(WaitingError);
    expect(released.calls).toEqual(["note later", "ended", "forget", "wait"]);
    const other = await run(form, chunkOf(form, eight), { version: "2" });
    expect(other.answer).toBeInstanceOf(DelayedError);
    expect([other.calls, other.runs]).toEqual([["delayed"], []]);
    const gone = await run(form, chunkOf(form, eight), { version: "gone" });
    expect([gone.answer, gone.runs]).toEqual(["written", []]);
    expect(outputsOf(gone.finish)).toEqual(eight.map(() => "version_gone"));
    const unwanted = await run(form, null);
    expect([unwanted.answer, unwanted.runs, unwanted.finish]).toEqual(["not wanted any more", [], undefined]);
    for (const finish of ["lost", "done", "ended"]) {
      expect((await run(form, chunkOf(form, eight), { finish })).answer).toBe(finish);
    }
  });
});

describe("a table for several slots", () => {
  const rows = (count: number) => Array.from({ length: count }, (_, i) => i);
  const sizes = (runs: readonly number[][]) => runs.map(({ length }) => length);

  test("runs in parts that keep every slot busy and delay singles only briefly, and is joined in order", async () => {
    for (const [count, slots, parts] of [
      [255, 2, [255]],
      [256, 2, [128, 128]],
      [1001, 2, [500, 501]],
      [2048, 2, [1024, 1024]],
      [2050, 2, [683, 683, 684]],
      [300, 4, [150, 150]],
    ] as const) {
      const { finish, runs } = await run("table", chunkOf("table", rows(count)), { slots });
      expect(sizes(runs)).toEqual(parts);
      expect(outputsOf(finish)).toEqual(rows(count));
    }
  });

  test("is blamed part by part, down to the row, and returns to the queue only when no part runs", async () => {
    const killer = await run("table", chunkOf("table", rows(400)), { slots: 2, kills: (value) => value === 321 });
    expect(outputsOf(killer.finish)).toEqual(rows(400).map((value) => (value === 321 ? "poisoned" : value)));
    expect(sizes(killer.runs).filter((length) => length === 200)).toHaveLength(3);
    const released = await run("table", chunkOf("table", rows(400)), { slots: 2, released: true });
    expect(released.answer).toBeInstanceOf(WaitingError);
    expect([sizes(released.runs), released.finish]).toEqual([[200, 200], undefined]);
    expect(released.calls.slice(-3)).toEqual(["ended", "forget", "wait"]);
  });
});
