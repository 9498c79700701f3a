import { openLog } from "@millrace/shared/service/log.js";
import { packTensors } from "@millrace/shared/tensors/tensor-pack.js";
import type { JobBreaker } from "@millrace/workers/jobs/job-breaker.js";
import { processPrediction } from "@millrace/workers/jobs/process-prediction.js";
import type { ServedVersion, TakenJob } from "@millrace/workers/jobs/taken-prediction.js";
import { createWorkerMetrics } from "@millrace/workers/monitoring/metrics.js";
import type { Outcome, Work } from "@millrace/workers/runs/work.js";
import { DelayedError, UnrecoverableError, WaitingError } from "bullmq";
import { describe, expect, test } from "vitest";
import { machineClock } from "../support/redis/machine-clock.js";

const served: ServedVersion = {
  ...{ model: "m", version: "1", digest: "sha256:d", uniform: false, attempts: 3, cacheTtlSeconds: 60 },
  runQueue: { model: "m", version: "1", modelKey: 0, joinable: true, maxBatchRows: 8, maxDelayMs: 0, timeoutMs: 700 },
};
const x = packTensors([{ name: "x", dtype: "int8", shape: [1, 2], bytes: new Uint8Array([1, 2]) }]).toString("base64");
const data = { v: 1, o: "alice", ver: "1", x, m: { mine: true }, r: "request-1" };
const item = { ok: true, text: '{"y":[[1]]}', confidence: Number.NaN, inferenceMs: 2, batchRows: 5 };

const closed: JobBreaker = {
  admit: () => "run",
  waitMs: 1000,
  recordSuccess: () => undefined,
  abandonProbe: () => undefined,
  recordDeath: async () => true,
};

/** Processes one job like a worker; returns the outcome and all calls to dependencies. */
async function processed(
  job: Partial<TakenJob> = {},
  fakes: {
    blob?: Buffer;
    outcome?: Outcome;
    breaker?: JobBreaker;
    history?: { final: boolean; diedRunning: boolean; deaths: number };
    write?: "lost";
  } = {},
) {
  const calls: unknown[][] = [];
  const submitted: Work[] = [];
  const passedOn: unknown[] = [];
  const tallied: unknown[][] = [];
  const blobs: string[] = [];
  // biome-ignore lint/suspicious/noExplicitAny: a prediction as JSON
  const written: any[] = [];
  const process = processPrediction({
    model: "m",
    clock: machineClock,
    workerId: "w",
    version: (name) => (name === "1" ? served : undefined),
    isKnown: async (name) => name !== "gone",
    breaker: () => fakes.breaker ?? closed,
    dispatcher: {
      async submit(work) {
        submitted.push(work);
        work.onBegin(1000, work.alone);
        return fakes.outcome ?? { kind: "done", item };
      },
    },
    writer: {
      async write({ blob, by, cache, dedup, id, result }) {
        if (blob !== undefined) blobs.push(blob);
        written.push({ ...JSON.parse(result.json), owner: result.owner });
        calls.push(["write", id, typeof by === "string" ? by : by.token, result.status]);
        passedOn.push({ cache, dedup, input: result.input });
        return fakes.write ?? "written";
      },
    },
    notebook: {
      note: async (id, note) => void calls.push(["note", id, note]),
      noteLater: (id, note) => void calls.push(["noteLater", id, note]),
      ended: (id) => void calls.push(["ended", id]),
      forget: async (id) => void calls.push(["forget", id]),
    },
    blobs: {
      makeRoom: async () => ({ release: () => void calls.push(["release"]) }),
      read: async (id, bytes) => {
        calls.push(["read", id, bytes]);
        return fakes.blob ?? null;
      },
      keep: async (pack) => ({ pack: pack.toString("base64") }),
      forget: async (kept) => void (kept !== undefined && calls.push(["drop", kept])),
    },
    history: async () => fakes.history ?? { final: false, diedRunning: false, deaths: 0 },
    tally: (...counted) => void tallied.push(counted),
    onFinished: ({ status }) => calls.push(["finished", status]),
    metrics: createWorkerMetrics(),
    log: openLog("worker", "error"),
  });
  const taken: TakenJob = {
    ...{ id: "id", data, timestamp: 900, attemptsMade: 0, attemptsStarted: 1, endedEarly: false },
    moveToDelayed: async (...args) => calls.push(["moveToDelayed", ...args]),
    moveToWait: async (...args) => calls.push(["moveToWait", ...args]),
    ...job,
  };
  const end = await process(taken, "token").then(
    (word) => ({ word, fault: undefined }),
    (fault: Error) => ({ word: undefined, fault }),
  );
  return { ...end, blobs, calls, passedOn, submitted, tallied, written };
}

describe("processing a prediction's job", () => {
  test("that runs writes its result, with its own times, before BullMQ is told of the end", async () => {
    const { calls, word, written } = await processed();
    expect(word).toBe("succeeded");
    expect(written[0]).toMatchObject({ status: "succeeded", output: { y: [[1]] }, attempts: 1, owner: "alice" });
    expect(written[0]).toMatchObject({ metadata: { mine: true }, model_digest: "sha256:d", error: null });
    expect(written[0].timings).toMatchObject({ queue_ms: 100, inference_ms: 2, batch_rows: 5 });
    expect(calls).toEqual([
      ["noteLater", "id", { startedAt: 1000, attempt: 1, alone: false, worker: "w", token: "token" }],
      ["ended", "id"],
      ["write", "id", "token", "succeeded"],
      ["finished", "succeeded"],
    ]);
  });

  test("is noted before its run, not later, if it was taken before or its start is to be published", async () => {
    const note = { startedAt: 1000, attempt: 1, alone: false, worker: "w", token: "token" };
    for (const job of [{ attemptsStarted: 2 }, { data: { ...data, s: 1 } }]) {
      const { calls } = await processed(job);
      expect(calls).toEqual([
        ["note", "id", note],
        ["ended", "id"],
        ["write", "id", "token", "succeeded"],
        ["finished", "succeeded"],
      ]);
    }
  });

  test("whose input is a blob reads it, frees its memory, and drops it or keeps it for a retry", async () => {
    const blob = Buffer.from(x, "base64");
    const large = { data: { ...data, x: "", b: blob.length } };
    const succeeded = await processed(large, { blob });
    expect(succeeded.word).toBe("succeeded");
    expect(succeeded.submitted[0]?.pack).toEqual(blob);
    expect(succeeded.calls).toEqual([
      ["read", "id", blob.length],
      ["noteLater", "id", expect.anything()],
      ["ended", "id"],
      ["write", "id", "token", "succeeded"],
      ["finished", "succeeded"],
      ["release"],
    ]);
    expect(succeeded.blobs).toEqual(["drop"]);
    const failed = await processed(large, { blob, outcome: { kind: "done", item: { ...item, ok: false } } });
    expect([failed.blobs, failed.calls.at(-1)]).toEqual([["keep"], ["release"]]);
    const lost = await processed(large);
    expect(lost.submitted).toEqual([]);
    expect(lost.written[0]).toMatchObject({ status: "failed", error: { code: "input_lost" } });
  });

  test("with tensors as output writes them, and drops them if its result is not written", async () => {
    const pack = Buffer.from("tensors");
    const outcome: Outcome = { kind: "done", item: { ...item, pack } };
    const written = await processed({ data: { ...data, d: "hash" } }, { outcome });
    const packed = pack.toString("base64");
    expect(written.passedOn).toMatchObject([{ cache: { outputJson: packed, ttlSeconds: 60, packed: true } }]);
    const lost = await processed({}, { outcome, write: "lost" });
    expect(lost.calls.at(-1)).toEqual(["drop", { pack: packed }]);
    expect([written.tallied, lost.tallied]).toEqual([[["1", 1, expect.any(Number), expect.anything()]], []]);
  });

  test("that was ended before it was taken neither runs nor writes", async () => {
    const { calls, submitted, word } = await processed({ endedEarly: true });
    expect([word, submitted, calls]).toEqual(["ended before it was taken", [], []]);
  });

  test("whose version this worker does not have is delayed by a second, for another worker", async () => {
    const before = Date.now();
    const { calls, fault, submitted } = await processed({ data: { ...data, ver: "2" } });
    expect(fault).toBeInstanceOf(DelayedError);
    expect(submitted).toEqual([]);
    expect(calls).toEqual([["moveToDelayed", expect.any(Number), "token"]]);
    expect((calls[0] as [string, number])[1]).toBeGreaterThanOrEqual(before + 1000);
  });

  test("whose version was removed for good fails as version_gone", async () => {
    const { fault, submitted, written } = await processed({ data: { ...data, ver: "gone" } });
    expect(fault).toBeInstanceOf(UnrecoverableError);
    expect(submitted).toEqual([]);
    expect(written[0]).toMatchObject({ status: "failed", version: "gone", output: null, attempts: 0 });
    expect(written[0].error.code).toBe("version_gone");
  });

  test("whose data cannot be read fails for good", async () => {
    const { calls, fault } = await processed({ data: { v: 2 } });
    expect(fault).toBeInstanceOf(UnrecoverableError);
    expect(calls).toEqual([]);
  });

  test("that expired while it waited ends as expired, and does not run", async () => {
    const { fault, submitted, written } = await processed({ data: { ...data, e: Date.now() - 1 } });
    expect(fault).toBeInstanceOf(UnrecoverableError);
    expect(submitted).toEqual([]);
    expect(written).toHaveLength(1);
    expect(written[0]).toMatchObject({ status: "expired", attempts: 0, started_at: null, error: { code: "expired" } });
  });

  test("that is taken again after its end neither runs nor writes", async () => {
    const history = { final: true, diedRunning: false, deaths: 0 };
    const { calls, submitted, word } = await processed({ attemptsStarted: 2 }, { history });
    expect([word, submitted, calls]).toEqual(["already final", [], []]);
  });

  test("that was in a run at its worker's death runs alone from then on", async () => {
    const history = { final: false, diedRunning: true, deaths: 0 };
    const again = await processed({ attemptsStarted: 2 }, { history });
    expect(again.submitted[0]?.alone).toBe(true);
    expect(again.word).toBe("succeeded");
    const retried = await processed({ attemptsMade: 1, attemptsStarted: 2 });
    expect(retried.submitted[0]?.alone).toBe(true);
    expect(retried.written[0].attempts).toBe(2);
    const unharmed = await processed({ attemptsStarted: 2 });
    expect(unharmed.submitted[0]?.alone).toBe(false);
  });

  test("that ran alone at ten worker deaths fails as poisoned, and at nine is tried again", async () => {
    const at = (deaths: number) =>
      processed({ attemptsStarted: deaths + 1 }, { history: { final: false, diedRunning: true, deaths } });
    expect((await at(9)).word).toBe("succeeded");
    const { fault, submitted, written } = await at(10);
    expect(fault).toBeInstanceOf(UnrecoverableError);
    expect(submitted).toEqual([]);
    expect(written[0]).toMatchObject({ status: "failed", error: { code: "poisoned" }, output: null });
  });

  test("that was not begun returns to the queue unharmed", async () => {
    const { calls, fault, written } = await processed({}, { outcome: { kind: "released" } });
    expect(fault).toBeInstanceOf(WaitingError);
    expect(written).toEqual([]);
    expect(calls.slice(-2)).toEqual([
      ["forget", "id"],
      ["moveToWait", "token"],
    ]);
  });

  test("that was ended from outside while it ran writes nothing over that end", async () => {
    const { calls, word, written } = await processed({}, { outcome: { kind: "canceled" } });
    expect([word, written]).toEqual(["ended while it ran", []]);
    expect(calls.map(([what]) => what)).toEqual(["noteLater", "ended", "forget"]);
  });

  test("passes on its output for the cache if it succeeds, its input for a retry if it fails", async () => {
    const shared = { data: { ...data, d: "hash" } };
    const succeeded = await processed(shared);
    const cache = { outputJson: item.text, ttlSeconds: 60 };
    expect(succeeded.passedOn).toEqual([{ cache, dedup: "hash", input: undefined }]);
    expect((await processed()).passedOn).toEqual([{ cache: null, dedup: null, input: undefined }]);
    const failed = await processed(shared, { outcome: { kind: "done", item: { ...item, ok: false } } });
    expect(failed.passedOn).toEqual([{ cache: null, dedup: "hash", input: x }]);
  });

  test.each(["timeout", "poisoned"] as const)(
    "that is blamed (%s) is tried again until its attempts are used up",
    async (code) => {
      const first = await processed({ attemptsMade: 1, attemptsStarted: 2 }, { outcome: { kind: "blamed", code } });
      expect(first.fault).not.toBeInstanceOf(UnrecoverableError);
      expect(first.fault?.message).toContain(code);
      expect(first.written).toEqual([]);
      const last = await processed({ attemptsMade: 2, attemptsStarted: 3 }, { outcome: { kind: "blamed", code } });
      expect(last.fault).toBeInstanceOf(UnrecoverableError);
      expect(last.written[0]).toMatchObject({ status: "failed", attempts: 3, error: { code } });
    },
  );

  test("whose slot died by the version's fault is delayed, without losing an attempt", async () => {
    const deaths: unknown[] = [];
    const breaker = { ...closed, waitMs: 3000, recordDeath: async (death: unknown) => deaths.push(death) === 0 };
    const outcome = { kind: "blamed", code: "poisoned" } as const;
    const { calls, fault, written } = await processed({ attemptsMade: 2, attemptsStarted: 3 }, { breaker, outcome });
    expect([fault, written, deaths]).toEqual([
      expect.any(DelayedError),
      [],
      [{ id: "id", owner: "alice", last: true }],
    ]);
    expect(calls.map(([what]) => what)).toEqual(["note", "ended", "forget", "moveToDelayed"]);
    expect(calls.at(-1)?.[1]).toBeGreaterThan(Date.now() + 1000);
  });

  test("of a version with an open breaker is delayed, and not begun", async () => {
    const { calls, fault, submitted } = await processed({}, { breaker: { ...closed, admit: () => "wait" } });
    expect([fault, submitted]).toEqual([expect.any(DelayedError), []]);
    expect(calls).toEqual([["moveToDelayed", expect.any(Number), "token"]]);
  });

  test("that is the probe of a version runs alone, before its expiry, and reports the outcome", async () => {
    const calls: string[] = [];
    const breaker: JobBreaker = {
      ...closed,
      admit: () => "probe",
      recordSuccess: () => void calls.push("recordSuccess"),
      abandonProbe: (id) => void calls.push(`abandoned ${id}`),
    };
    const { submitted } = await processed({ data: { ...data, e: Date.now() + 60_000 } }, { breaker });
    expect(submitted.map(({ alone, expiresAt }) => [alone, expiresAt])).toEqual([[true, expect.any(Number)]]);
    expect(calls).toEqual(["recordSuccess", "abandoned id"]);
    await processed({}, { breaker, outcome: { kind: "released" } });
    expect(calls).toEqual(["recordSuccess", "abandoned id", "abandoned id"]);
  });

  test("whose input the model cannot run fails at once, although it has attempts left", async () => {
    const outcome: Outcome = { kind: "done", item: { ...item, ok: false, text: "out of range" } };
    const { fault, written } = await processed({}, { outcome });
    expect(fault).toBeInstanceOf(UnrecoverableError);
    expect(written[0]).toMatchObject({
      ...{ status: "failed", attempts: 1, output: null, timings: null },
      error: { code: "inference_failed", detail: "out of range" },
    });
  });

  test("whose lock was lost ends without an error, whatever its outcome", async () => {
    expect((await processed({}, { write: "lost" })).word).toBe("lost");
    const outcome: Outcome = { kind: "done", item: { ...item, ok: false } };
    expect((await processed({}, { write: "lost", outcome })).word).toBe("lost");
  });
});
