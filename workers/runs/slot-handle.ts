import { type ChildProcess, spawn } from "node:child_process";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  decodeDone,
  decodeMisfit,
  encodeJsonFrame,
  encodeLaidRun,
  encodeRun,
  type Frame,
  frameKinds,
  type RunItem,
  readFrames,
} from "./frames.js";
import type { LoadOrder, LoadReply } from "./load-request.js";
import { closeSharedFile, openSharedFile, writeTable } from "./shared-file.js";
import { outOfMemoryExit, slotCommand, tellsOfMemory } from "./slot-command.js";

/**
 * A slot ended during a call: `timeout` where this side killed it after the deadline, `slow` where a load was abandoned
 * before it, `memory` where it got no more memory, else `crash`, or `closed`.
 */
export class SlotDiedError extends Error {
  readonly reason: "timeout" | "memory" | "crash" | "closed" | "slow";
  /** The misfit so far, as in `RunReply`. */
  readonly misfit: string | null;

  constructor(reason: SlotDiedError["reason"], detail: string, misfit: string | null = null) {
    super(detail);
    this.name = "SlotDiedError";
    this.reason = reason;
    this.misfit = misfit;
  }
}

/** The outputs of a table's rows, as a chunk of `bulk-chunk.ts`, and the misfit as in `RunReply`. */
export interface TableReply {
  misfit: string | null;
  table: Buffer;
}

/** The outcome of each input; `misfit`: the reason why the version's inputs share no run, null while they may. */
export interface RunReply {
  misfit: string | null;
  items: RunItem[];
}

/** Whether inputs may share a run of the model, and the deadline of each run, in ms. */
export interface RunTerms {
  joins: boolean;
  timeoutMs: number;
}

type Reply = LoadReply | RunReply | TableReply;

interface PendingCall<T> {
  resolve(value: T): void;
  reject(fault: SlotDiedError): void;
  timer: NodeJS.Timeout;
  misfit: string | null;
}

const slotProgram = fileURLToPath(new URL("../slot/main.js", import.meta.url));
const closeGraceMs = 2000;
const cancelGraceMs = 100;
/** The end of what a slot wrote to its stderr, in bytes, and the time to wait for it. */
const lastWordsKept = 4096;
const lastWordsMs = 1000;

/** The worker's side of one slot process: one call at a time, each with a deadline that kills the process. */
export class SlotHandle {
  readonly #child: ChildProcess;
  readonly #pipe: Duplex;
  #sharedFile: number | null;
  #pending: PendingCall<Reply> | null = null;
  #lastRunId = 0;
  #killedFor: SlotDiedError["reason"] | null = null;
  #lastWords = "";
  readonly exited: Promise<string>;

  constructor(environment: Record<string, string | undefined>, program: string = slotProgram) {
    this.#sharedFile = openSharedFile();
    // A slot makes few objects and many buffers, which are freed only when the young space is full; so it is small.
    const [command, args] = slotCommand(["--max-semi-space-size=1", program], environment);
    this.#child = spawn(command, args, {
      env: environment,
      stdio: ["pipe", "ignore", "pipe", "pipe", this.#sharedFile ?? "ignore"],
    });
    this.#child.stderr?.on("data", (bytes: Buffer) => {
      process.stderr.write(bytes);
      this.#lastWords = (this.#lastWords + bytes.toString("latin1")).slice(-lastWordsKept);
    });
    const saidAll = new Promise((said) => this.#child.stderr?.once("close", said));
    this.#pipe = this.#child.stdio[3] as Duplex;
    // The pipe closes when the slot dies; the exit tells the reason.
    this.#pipe.on("error", () => undefined);
    this.#child.stdin?.on("error", () => undefined);
    readFrames(this.#pipe, (frame) => this.#receive(frame));
    this.exited = new Promise((resolve) => {
      const end = (how: string) => {
        this.#fail(how);
        if (this.#sharedFile !== null) closeSharedFile(this.#sharedFile);
        this.#sharedFile = null;
        resolve(how);
      };
      this.#child.once("error", (fault) => end(`could not be started: ${fault.message}`));
      this.#child.once("exit", (code, signal) => {
        const how = signal === null ? `exit code ${code}` : `signal ${signal}`;
        // What it said last may still be on its way.
        void Promise.race([saidAll, delay(lastWordsMs)]).then(() => {
          if (code === outOfMemoryExit || tellsOfMemory(this.#lastWords)) this.#killedFor ??= "memory";
          end(how);
        });
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Loads a version. Rejects with a SlotDiedError when that kills the process or exceeds the deadline. */
  load(order: LoadOrder, timeoutMs: number): Promise<LoadReply> {
    return this.#send<LoadReply>([encodeJsonFrame(frameKinds.load, order)], timeoutMs);
  }

  unload(key: number): void {
    this.#pipe.write(encodeJsonFrame(frameKinds.unload, { key }));
  }

  /**
   * Runs packs of one loaded version; `stop` ends the run with the process. Rejects with a SlotDiedError when the run
   * kills the process or exceeds the deadline.
   */
  run(
    modelKey: number,
    packs: readonly Buffer[],
    { joins, timeoutMs }: RunTerms,
    stop?: AbortSignal,
  ): Promise<RunReply> {
    return this.#run<RunReply>(encodeRun({ runId: ++this.#lastRunId, modelKey, joins, packs }), timeoutMs, stop);
  }

  /** The same for one pack with many rows of a tabular model, in two parts as `packParts` makes them. */
  runTable(
    modelKey: number,
    pack: readonly [Buffer, Uint8Array],
    { joins, timeoutMs }: RunTerms,
    stop?: AbortSignal,
  ): Promise<TableReply> {
    const runId = ++this.#lastRunId;
    const [{ length: headLength }, { length }] = pack;
    if (this.#sharedFile !== null && this.#pending === null && writeTable(this.#sharedFile, pack)) {
      const laid = encodeLaidRun({ runId, modelKey, joins, length: headLength + length, headLength });
      return this.#run<TableReply>([laid], timeoutMs, stop);
    }
    const whole = Buffer.concat(pack);
    const run = encodeRun({ runId, modelKey, joins, packs: [whole] }, frameKinds.runTable);
    return this.#run<TableReply>(run, timeoutMs, stop);
  }

  async #run<T extends RunReply | TableReply>(
    parts: readonly Buffer[],
    timeoutMs: number,
    stop?: AbortSignal,
  ): Promise<T> {
    // Most runs end within a moment; only a longer one is worth a process.
    let killTimer: NodeJS.Timeout | undefined;
    const end = () => {
      killTimer = setTimeout(() => this.#child.kill("SIGKILL"), cancelGraceMs);
    };
    stop?.addEventListener("abort", end, { once: true });
    try {
      return await this.#send<T>(parts, timeoutMs);
    } finally {
      stop?.removeEventListener("abort", end);
      clearTimeout(killTimer);
    }
  }

  /** Kills the process; its current call rejects for this reason. */
  abandon(reason: "slow" | "closed"): void {
    this.#killedFor ??= reason;
    this.#child.kill("SIGKILL");
  }

  /** Ends the process: by SIGKILL where it is busy, else by closing the pipe. May be called twice. */
  async close(): Promise<void> {
    this.#killedFor ??= "closed";
    if (this.#pending !== null) this.#child.kill("SIGKILL");
    this.#pipe.end();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), closeGraceMs);
    await this.exited;
    clearTimeout(timer);
  }

  #send<T extends Reply>(parts: readonly Buffer[], timeoutMs: number): Promise<T> {
    if (this.#pending !== null) throw new Error("A slot takes one call at a time.");
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#killedFor = "timeout";
        this.#child.kill("SIGKILL");
      }, timeoutMs);
      this.#pending = { resolve: resolve as PendingCall<Reply>["resolve"], reject, timer, misfit: null };
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) this.#fail("an end before the call");
      else {
        this.#pipe.cork();
        for (const part of parts) this.#pipe.write(part);
        this.#pipe.uncork();
      }
    });
  }

  #receive(frame: Frame): void {
    const call = this.#pending;
    if (call === null) return;
    if (frame.kind === frameKinds.nextRun) {
      // Each run of the model has a deadline of its own.
      call.timer.refresh();
      call.misfit = decodeMisfit(frame.body, 0).misfit;
      return;
    }
    this.#pending = null;
    clearTimeout(call.timer);
    if (frame.kind === frameKinds.done) call.resolve(decodeDone(frame.body));
    else if (frame.kind === frameKinds.doneTable) {
      const { end, misfit } = decodeMisfit(frame.body, 0);
      call.resolve({ misfit, table: frame.body.subarray(end) });
    } else call.resolve(JSON.parse(frame.body.toString()) as LoadReply);
  }

  #fail(how: string): void {
    const call = this.#pending;
    if (call === null) return;
    this.#pending = null;
    clearTimeout(call.timer);
    const reason = this.#killedFor ?? "crash";
    call.reject(
      new SlotDiedError(
        reason,
        reason === "timeout"
          ? "The run exceeded its deadline."
          : reason === "memory"
            ? "The slot got no more memory."
            : `The slot ended by ${how}.`,
        call.misfit,
      ),
    );
  }
}
