import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import type { RedisTarget } from "@millrace/shared/redis/redis-url.js";
import { defineScript } from "@millrace/shared/scripts/lua/define-script.js";
import { beatTable } from "@millrace/shared/scripts/models/beats.js";
import type { Logger } from "@millrace/shared/service/log.js";

/** The versions of one model that a worker serves, and those that it drains. */
export interface BeatVersions {
  serving: string[];
  leaving: string[];
}

/** An order to the thread, which answers with its `id`; an answer without an order has 0. */
export type BeatOrder = { id: number } & (
  | { kind: "set"; model: string; versions: BeatVersions }
  | { kind: "stop" }
  | { kind: "end" }
);
export interface BeatAnswer {
  id: number;
  fault: string | null;
}

export interface BeatSettings {
  redisTarget: RedisTarget;
  keyPrefix: string;
  workerId: string;
  hangMs: number;
  /** The text of the step of a beat. */
  beatLua: string;
  /** Shared times in ns of the machine's steady clock: the main thread's last progress, and the last beat. */
  marks: BigInt64Array;
}

/** What a worker gives. */
type WorkerBeats = Omit<BeatSettings, "beatLua" | "marks">;

type Order = BeatOrder extends infer One ? (One extends { id: number } ? Omit<One, "id"> : never) : never;

interface Pending {
  order: BeatOrder;
  resolve(): void;
  reject(fault: Error): void;
}

const { lua: beatLua } = defineScript(beatTable);

const progressEveryMs = 500;
const restartMs = 1000;
/** Beats that were not ended expire by themselves. */
const endMs = 2000;

/**
 * The heartbeats of a worker and of its versions, from a thread of their own. The rule: a worker is alive while its
 * process lives and its main thread has made progress within `hangMs`. A main thread that is busy, blocked or short of
 * CPU for less than that changes nothing; one that hangs for longer is dead to others once its last beat expires.
 */
export class Beats {
  readonly #settings: WorkerBeats;
  readonly #log: Logger;
  readonly #marks = new BigInt64Array(new SharedArrayBuffer(16));
  readonly #models = new Map<string, BeatVersions>();
  readonly #pending = new Map<number, Pending>();
  readonly #progress: NodeJS.Timeout;
  #thread: Worker;
  #lastId = 0;
  #ended: Promise<void> | null = null;

  constructor(settings: WorkerBeats, log: Logger) {
    this.#settings = settings;
    this.#log = log;
    const mark = (place: number) => Atomics.store(this.#marks, place, process.hrtime.bigint());
    mark(0);
    mark(1);
    this.#progress = setInterval(() => mark(0), progressEveryMs);
    this.#thread = this.#start();
  }

  /** Sets the versions of a model that beat. Resolves when Redis has it, also that others have ended. */
  set(model: string, versions: BeatVersions): Promise<void> {
    this.#models.set(model, versions);
    return this.#order({ kind: "set", model, versions });
  }

  /** Beats no more; the last beats expire. While Redis is away, it is waited for a moment only. */
  stop(): Promise<void> {
    return this.#orderInTime({ kind: "stop" });
  }

  /** Milliseconds since Redis last accepted all beats. */
  lastAgeMs(): number {
    return Number(process.hrtime.bigint() - Atomics.load(this.#marks, 1)) / 1e6;
  }

  /** Ends all beats and the thread. May be called twice. */
  close(): Promise<void> {
    this.#ended ??= this.#orderInTime({ kind: "end" })
      .catch((error: Error) => void this.#log.warn("beats not ended, they expire", { error }))
      .then(async () => {
        clearInterval(this.#progress);
        await this.#thread.terminate();
      });
    return this.#ended;
  }

  /** An order that is waited for no longer than a worker may take to end without Redis. */
  async #orderInTime(wanted: Order): Promise<void> {
    const late = new AbortController();
    const given = this.#order(wanted).finally(() => late.abort());
    await Promise.race([given, delay(endMs, undefined, { signal: late.signal }).catch(() => given)]);
  }

  #order(wanted: Order): Promise<void> {
    const order = { ...wanted, id: ++this.#lastId } as BeatOrder;
    return new Promise((resolve, reject) => {
      this.#pending.set(order.id, { order, resolve, reject });
      this.#thread.postMessage(order);
    });
  }

  #start(): Worker {
    const thread = new Worker(new URL("./beat-thread.js", import.meta.url), {
      stdin: false,
      workerData: { ...this.#settings, beatLua, marks: this.#marks } satisfies BeatSettings,
      resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 },
    });
    thread.on("message", ({ fault, id }: BeatAnswer) => {
      const pending = this.#pending.get(id);
      this.#pending.delete(id);
      if (fault === null) pending?.resolve();
      else if (pending !== undefined) pending.reject(new Error(fault));
      else this.#log.warn("heartbeat failed", { error: fault });
    });
    thread.on("error", (error) => this.#log.error("the thread of heartbeats failed and is started again", { error }));
    thread.on("exit", () => {
      if (this.#ended !== null) {
        for (const { resolve } of this.#pending.values()) resolve();
        return;
      }
      setTimeout(() => {
        this.#thread = this.#start();
        for (const [model, versions] of this.#models)
          this.#thread.postMessage({ id: 0, kind: "set", model, versions } satisfies BeatOrder);
        for (const { order } of this.#pending.values()) this.#thread.postMessage(order);
      }, restartMs).unref();
    });
    return thread;
  }
}
