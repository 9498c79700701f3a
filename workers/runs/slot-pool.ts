import { setPriority } from "node:os";
import type { Logger } from "@millrace/shared/service/log.js";
import type { LoadReply, LoadRequest } from "./load-request.js";
import { LoneLoads } from "./lone-loads.js";
import { isFree, isServing, residentBytes, type Slot } from "./slot.js";
import { type SlotDiedError, SlotHandle } from "./slot-handle.js";
import { SlotPlaces } from "./slot-places.js";
import { type LoadListener, VersionLoads } from "./version-loads.js";

const shortestRestartMs = 100;
const longestRestartMs = 10_000;
const weighEveryMs = 1000;
const usualRetryMs = 1000;

export interface SlotPoolOptions {
  slots: number;
  environment: Record<string, string | undefined>;
  log: Logger;
  /** Memory above which a slot is replaced as soon as it is idle, in bytes; undefined: none. */
  maxResidentBytes?: number | undefined;
  /** Replaces the program of the slots, for tests of the pool. */
  program?: string;
  /** Nice value of the slots; undefined: the worker's own. */
  nice?: number;
  /** First delay before a slot tries again to load a version, in ms. */
  retryMs?: number;
  /** Duration of a load from which on it is set aside, if others wait; see `VersionLoads`. In ms. */
  slowLoadMs: number;
  /** Called when a slot becomes idle. */
  onIdle(): void;
  /** Called when a slot ended unexpectedly. */
  onDeath(reason: SlotDiedError["reason"]): void;
}

/**
 * The slots of a worker, each with every version loaded. At the start a slot serves what it holds between two loads.
 * Later, new versions are loaded in a process beside the slot, which then takes the slot's place, one slot after the
 * other: no run waits for a load, and a version that kills its process harms no slot. A dead slot is replaced, ever
 * more slowly while it keeps dying young. A version that is slow to load or kills a process is loaded in a process of
 * its own. One that a slot has held once is good: a slot that cannot load it goes without and tries again.
 */
export class SlotPool {
  readonly #options: SlotPoolOptions;
  readonly #places: SlotPlaces;
  readonly #processes = new Set<Slot>();
  readonly #loads: VersionLoads;
  readonly #lone: LoneLoads;
  #closing = false;
  #weighing: NodeJS.Timeout | undefined;
  #restartMs = shortestRestartMs;

  /** Starts the slot processes at once, so that they start while the worker does. */
  constructor(options: SlotPoolOptions) {
    this.#options = options;
    this.#loads = new VersionLoads(options.log, options.slowLoadMs, (request) => this.#lone.add(request));
    const shared = { loads: this.#loads, spawn: () => this.#spawn() };
    const { log, onIdle, retryMs = usualRetryMs, slots } = options;
    this.#places = new SlotPlaces({ ...shared, slots, log, retryMs, onIdle });
    this.#lone = new LoneLoads({ ...shared, promote: (slot) => this.#places.promote(slot) });
    const { maxResidentBytes } = options;
    if (maxResidentBytes === undefined) return;
    this.#weighing = setInterval(() => {
      for (const place of this.#places.slots.keys()) void this.#weigh(place, maxResidentBytes);
    }, weighEveryMs);
  }

  /**
   * Loads versions into every slot. The listener is told of each as soon as it is decided. Resolves to a reply for
   * each, also for those that no slot can load, once all are.
   */
  async load(requests: readonly LoadRequest[], listener: Partial<LoadListener> = {}): Promise<LoadReply[]> {
    const replies = requests.map((request) => {
      return new Promise<LoadReply>((resolve) => {
        const decided = (reply: LoadReply) => {
          listener.decided?.(reply);
          resolve(reply);
        };
        this.#loads.want(request, { decided, setAside: (key) => listener.setAside?.(key) });
      });
    });
    await this.#places.renewAll();
    return Promise.all(replies);
  }

  /** Unloads a version from every slot and frees its memory. No run of it may follow. */
  unload(modelKey: number): void {
    this.#loads.forget(modelKey);
    this.#places.forget(modelKey);
    for (const slot of this.#processes) {
      if (slot.loaded.delete(modelKey) && slot.state !== "gone") slot.handle.unload(modelKey);
    }
  }

  /** Whether an idle slot holds this version. */
  hasIdle(modelKey: number): boolean {
    return this.#places.slots.some((slot) => isFree(slot) && slot.loaded.has(modelKey));
  }

  /** Whether any slot holds this version, or is expected to. */
  holds(modelKey: number): boolean {
    return this.#places.holds(modelKey);
  }

  get alive(): number {
    return this.#places.slots.filter(isServing).length;
  }

  get busy(): number {
    return this.#places.slots.filter((slot) => slot.state === "busy").length;
  }

  get pids(): number[] {
    return this.#places.slots.flatMap((slot) => slot.handle.pid ?? []);
  }

  /** Makes a call on an idle slot that holds this version; only after `hasIdle`. Rejects as the call does. */
  async use<T>(modelKey: number, call: (slot: SlotHandle) => Promise<T>): Promise<T> {
    const slot = this.#places.slots.find((candidate) => isFree(candidate) && candidate.loaded.has(modelKey));
    if (slot === undefined) throw new Error("No slot is idle.");
    slot.state = "busy";
    try {
      const reply = await call(slot.handle);
      slot.state = "idle";
      if (slot.leaving) void slot.handle.close();
      slot.ran = true;
      this.#restartMs = shortestRestartMs;
      queueMicrotask(this.#options.onIdle);
      return reply;
    } catch (fault) {
      slot.state = "gone";
      throw fault;
    } finally {
      slot.reserved?.();
    }
  }

  /** Ends all slots; current runs reject as `closed`. May be called twice. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#loads.close();
    this.#lone.close();
    this.#places.close();
    clearInterval(this.#weighing);
    await Promise.all([...this.#processes].map((slot) => slot.handle.close()));
  }

  #spawn(): Slot {
    const handle = new SlotHandle(this.#options.environment, this.#options.program);
    const slot: Slot = {
      handle,
      state: "starting",
      loaded: new Set(),
      leaving: false,
      reserved: null,
      loading: false,
      ran: false,
      overweight: false,
    };
    this.#processes.add(slot);
    const { nice } = this.#options;
    if (nice !== undefined && handle.pid !== undefined) setPriority(handle.pid, nice);
    const startedAt = performance.now();
    void handle.exited.then((how) => {
      const wasServing = slot.state !== "starting";
      slot.state = "gone";
      this.#processes.delete(slot);
      const place = this.#places.slots.indexOf(slot);
      if (this.#closing || slot.leaving || slot.loading || !wasServing || place < 0) return;
      this.#options.log.warn("slot ended and is replaced", { slot_pid: handle.pid, how });
      this.#options.onDeath("crash");
      if (performance.now() - startedAt < longestRestartMs)
        this.#restartMs = Math.min(longestRestartMs, this.#restartMs * 2);
      setTimeout(() => void this.#places.renew(place), this.#restartMs - shortestRestartMs).unref();
    });
    return slot;
  }

  /**
   * Replaces a slot over the memory limit, once it has run something: one that was over it from the start would be
   * again.
   */
  async #weigh(place: number, limitBytes: number): Promise<void> {
    const slot = this.#places.slots[place] as Slot;
    if (!slot.ran || slot.overweight || slot.handle.pid === undefined) return;
    const bytes = await residentBytes(slot.handle.pid);
    if (bytes === null || bytes <= limitBytes || slot.overweight) return;
    slot.overweight = true;
    const { pid } = slot.handle;
    this.#options.log.warn("slot holds too much memory and is replaced", { slot_pid: pid, bytes, limitBytes });
    await this.#places.renew(place);
  }
}
