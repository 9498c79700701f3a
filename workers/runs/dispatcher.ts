import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { JoinTurn } from "@millrace/shared/service/join-turn.js";
import type { RunItem } from "./frames.js";
import type { RunTerms, SlotDiedError, SlotHandle } from "./slot-handle.js";
import { type BulkWork, isBefore, type Outcome, type RunQueue, rowsOfWorks, type Waiting, type Work } from "./work.js";

/** The part of a slot that the dispatcher uses. */
export type RunningSlot = Pick<SlotHandle, "run" | "runTable">;

/** The part of a slot pool that the dispatcher uses. */
export interface Slots {
  hasIdle(modelKey: number): boolean;
  use<T>(modelKey: number, call: (slot: RunningSlot) => Promise<T>): Promise<T>;
}

export interface DispatcherHooks {
  /** A run begins. */
  onRun(runQueue: RunQueue, works: readonly Work[], rows: number): void;
  /** A version's outputs are not one per row; its inputs share no run from now on. Once for each version. */
  onMisfit(runQueue: RunQueue, reason: string): void;
}

/**
 * Dynamic batching. Works wait only while every slot is busy (or for the version's `maxDelayMs`). When a slot becomes
 * idle, the queue whose first work has waited longest gives up to `maxBatchRows` rows as one run. A run that dies with
 * more than one work in it blames none: each runs again alone, and only the one that dies alone is blamed.
 */
export class Dispatcher {
  readonly #slots: Slots;
  readonly #clock: Pick<Clock, "now">;
  readonly #queues = new Map<string, Waiting[]>();
  readonly #hooks: DispatcherHooks;
  #begun = new Set<Waiting>();
  #draining = false;
  #timer: NodeJS.Timeout | null = null;
  /** Pumps once a turn of the event loop: works that arrive together run together, also while slots are idle. */
  readonly #arrivals = new JoinTurn<void>(() => this.pump());

  /** `clock`: gives the times of starts, and tells which works have expired. */
  constructor(slots: Slots, clock: Pick<Clock, "now">, hooks: Partial<DispatcherHooks> = {}) {
    this.#slots = slots;
    this.#clock = clock;
    this.#hooks = { onRun: () => undefined, onMisfit: () => undefined, ...hooks };
  }

  /** Resolves when the work has run or is given back; never rejects. */
  submit(work: Work): Promise<Outcome> {
    if (this.#draining) return Promise.resolve({ kind: "released" });
    return new Promise((settle) => {
      this.#enqueue({ ...work, since: performance.now(), stop: null, settle });
      this.#arrivals.add();
    });
  }

  /**
   * Ends a work that was canceled from outside. A waiting work is dropped. A run of that work alone is ended with its
   * slot. A run of several works goes on, for the sake of the others.
   */
  cancel(id: string): void {
    for (const work of this.#begun) if (work.id === id) work.stop?.abort();
    for (const [key, queue] of this.#queues) {
      const i = queue.findIndex((work) => work.id === id);
      if (i < 0) continue;
      const [work] = queue.splice(i, 1);
      if (queue.length === 0) this.#queues.delete(key);
      work?.settle({ kind: "canceled" });
    }
  }

  /** Starts runs while slots are idle; call it when a slot becomes idle. */
  pump(): void {
    for (;;) {
      const key = this.#nextQueue();
      if (key === null) return;
      const run = this.#takeRun(key);
      if (run.length > 0) void this.#start(run);
    }
  }

  /** Releases waiting works and refuses further ones. Resolves when every run is done. */
  async drain(): Promise<void> {
    this.#draining = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    for (const queue of this.#queues.values()) for (const work of queue) work.settle({ kind: "released" });
    this.#queues.clear();
    while (this.#begun.size > 0) await this.#oneSettled();
  }

  /** Whether works of a version wait or run. */
  holds(modelKey: number): boolean {
    for (const work of this.#begun) if (work.runQueue.modelKey === modelKey) return true;
    for (const queue of this.#queues.values()) if (queue[0]?.runQueue.modelKey === modelKey) return true;
    return false;
  }

  /** Releases waiting works of all other versions, which no slot will run. */
  releaseOthers(modelKeys: ReadonlySet<number>): void {
    this.#release((modelKey) => !modelKeys.has(modelKey));
  }

  /** Releases waiting works of a version that must not run now. */
  release(modelKey: number): void {
    this.#release((key) => key === modelKey);
  }

  #release(isMeant: (modelKey: number) => boolean): void {
    for (const [key, queue] of this.#queues) {
      if (!isMeant((queue[0] as Waiting).runQueue.modelKey)) continue;
      this.#queues.delete(key);
      for (const work of queue) work.settle({ kind: "released" });
    }
  }

  get waiting(): number {
    let count = 0;
    for (const queue of this.#queues.values()) count += queue.length;
    return count;
  }

  #settled: (() => void)[] = [];

  #oneSettled(): Promise<void> {
    return new Promise((resolve) => this.#settled.push(resolve));
  }

  #enqueue(work: Waiting): void {
    // Works that run alone have a queue of their own, so that they never hold up those that can be joined.
    const apart = work.bulk !== undefined ? "bulk" : work.alone ? "alone" : null;
    const key = `${work.runQueue.modelKey}|${apart ?? `=${work.signature}`}`;
    const queue = this.#queues.get(key);
    if (queue === undefined) {
      this.#queues.set(key, [work]);
      return;
    }
    // The order of arrival is fair between owners, so each owner keeps its places, and its urgent works move forward
    // among them.
    let place = queue.push(work) - 1;
    for (let i = place - 1; i >= 0; i--) {
      const before = queue[i] as Waiting;
      if (before.owner !== work.owner && work.priority >= 0) continue;
      if (before.priority <= work.priority) break;
      queue[i] = work;
      queue[place] = before;
      place = i;
    }
  }

  /** The queue that is ready, has an idle slot and comes first; sets a timer for one that waits for company. */
  #nextQueue(): string | null {
    let best: string | null = null;
    let bestHead: Waiting | null = null;
    let soonest = Number.POSITIVE_INFINITY;
    const now = performance.now();
    for (const [key, queue] of this.#queues) {
      const head = queue[0] as Waiting;
      if ((bestHead !== null && !isBefore(head, bestHead, now)) || !this.#slots.hasIdle(head.runQueue.modelKey))
        continue;
      const dueAt =
        head.since + (head.alone || head.bulk !== undefined || !head.runQueue.joinable ? 0 : head.runQueue.maxDelayMs);
      if (dueAt > now && rowsOfWorks(queue) < head.runQueue.maxBatchRows) soonest = Math.min(soonest, dueAt);
      else {
        best = key;
        bestHead = head;
      }
    }
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (best === null && soonest < Number.POSITIVE_INFINITY) {
      this.#timer = setTimeout(() => this.pump(), Math.max(1, Math.ceil(soonest - now)));
    }
    return best;
  }

  #takeRun(key: string): Waiting[] {
    const queue = this.#queues.get(key) as Waiting[];
    const { runQueue, alone, bulk } = queue[0] as Waiting;
    let count = 1;
    if (runQueue.joinable && !alone && bulk === undefined) {
      let rows = (queue[0] as Waiting).rows;
      while (count < queue.length) {
        rows += (queue[count] as Waiting).rows;
        if (rows > runQueue.maxBatchRows) break;
        count += 1;
      }
    }
    const run = queue.splice(0, count);
    if (queue.length === 0) this.#queues.delete(key);
    const now = this.#clock.now();
    return run.filter((work) => {
      const inTime = work.expiresAt === undefined || work.expiresAt > now;
      if (!inTime) work.settle({ kind: "expired" });
      return inTime;
    });
  }

  async #start(run: Waiting[]): Promise<void> {
    const { runQueue } = run[0] as Waiting;
    const startedAt = this.#clock.now();
    for (const work of run) {
      this.#begun.add(work);
      work.onBegin(startedAt, run.length === 1);
    }
    const stop = run.length === 1 ? new AbortController() : null;
    (run[0] as Waiting).stop = stop;
    this.#hooks.onRun(runQueue, run, rowsOfWorks(run));
    try {
      const { bulk } = run[0] as Waiting;
      if (bulk === undefined) {
        const packs = run.map((work) => work.pack);
        const { modelKey } = runQueue;
        const terms = termsOf(runQueue);
        const reply = await this.#slots.use(modelKey, (slot) => slot.run(modelKey, packs, terms, stop?.signal));
        this.#noteMisfit(runQueue, reply.misfit);
        for (const [i, work] of run.entries()) this.#settle(work, { kind: "done", item: reply.items[i] as RunItem });
      } else this.#settle(run[0] as Waiting, await this.#runBulk(run[0] as Waiting, bulk, stop?.signal));
    } catch (fault) {
      this.#noteMisfit(runQueue, (fault as SlotDiedError).misfit ?? null);
      if (stop?.signal.aborted) this.#settle(run[0] as Waiting, { kind: "canceled" });
      else this.#afterDeath(run, (fault as SlotDiedError).reason);
    }
    this.pump();
  }

  async #runBulk({ runQueue }: Work, bulk: BulkWork, stop?: AbortSignal): Promise<Outcome> {
    const { modelKey } = runQueue;
    const terms = termsOf(runQueue);
    if ("table" in bulk) {
      const { misfit, table } = await this.#slots.use(modelKey, (slot) =>
        slot.runTable(modelKey, bulk.table, terms, stop),
      );
      this.#noteMisfit(runQueue, misfit);
      return { kind: "done in bulk", items: [], table };
    }
    const { items, misfit } = await this.#slots.use(modelKey, (slot) => slot.run(modelKey, bulk.packs, terms, stop));
    this.#noteMisfit(runQueue, misfit);
    return { kind: "done in bulk", items, table: null };
  }

  #noteMisfit(runQueue: RunQueue, misfit: string | null): void {
    if (misfit === null || !runQueue.joinable) return;
    runQueue.joinable = false;
    this.#hooks.onMisfit(runQueue, misfit);
  }

  #afterDeath(run: readonly Waiting[], reason: SlotDiedError["reason"]): void {
    for (const work of run) {
      if (reason === "closed" || this.#draining) this.#settle(work, { kind: "released" });
      else if (run.length === 1) this.#settle(work, { kind: "blamed", code: codes[reason] });
      else {
        this.#begun.delete(work);
        this.#enqueue({ ...work, alone: true });
      }
    }
  }

  #settle(work: Waiting, outcome: Outcome): void {
    this.#begun.delete(work);
    work.settle(outcome);
    const waiters = this.#settled;
    this.#settled = [];
    for (const wake of waiters) wake();
  }
}

/** The code of an input whose run ended a slot, by how it ended. */
const codes = { timeout: "timeout", slow: "timeout", memory: "out_of_memory", crash: "poisoned" } as const;

const termsOf = ({ joinable, timeoutMs }: RunQueue): RunTerms => ({ joins: joinable, timeoutMs });
