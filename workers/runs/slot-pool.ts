import { setPriority } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "@millrace/shared/service/log.js";
import type { LoadReply, LoadRequest } from "./load-request.js";
import { isFree, residentBytes, type Slot } from "./slot.js";
import { SlotDiedError, SlotHandle } from "./slot-handle.js";
import { VersionLoads } from "./version-loads.js";

const shortestRestartMs = 100;
const longestRestartMs = 10_000;
/** Ends of a process before its first load that blame no version. */
const deathsWithoutBlame = 3;
const weighEveryMs = 1000;

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
  /** Called when a slot becomes idle. */
  onIdle(): void;
  /** Called when a slot ended unexpectedly. */
  onDeath(reason: SlotDiedError["reason"]): void;
}

/**
 * The slots of a worker, each with every version loaded. New versions are loaded in a process beside the slot, which
 * then takes the slot's place, one slot after the other: no run waits for a load, and a version that kills its process
 * harms no slot. A dead slot is replaced, ever more slowly while it keeps dying young. A version that a slot has held
 * once is good: a slot that cannot load it goes without and tries again.
 */
export class SlotPool {
  readonly #options: SlotPoolOptions;
  /** The slot in service at each place, and the chain of changes of each place. */
  readonly #places: Slot[] = [];
  readonly #turns: Promise<void>[] = [];
  readonly #processes = new Set<Slot>();
  readonly #loads: VersionLoads;
  /** Versions that some slot could not load at its last renewal. */
  readonly #lacking = new Set<number>();
  readonly #retries = new Map<number, NodeJS.Timeout>();
  #retryMs: number;
  #serving = false;
  #closing = false;
  #weighing: NodeJS.Timeout | undefined;
  #restartMs = shortestRestartMs;

  /** Starts the slot processes at once, so that they start while the worker does. */
  constructor(options: SlotPoolOptions) {
    this.#options = options;
    this.#loads = new VersionLoads(options.log);
    this.#retryMs = options.retryMs ?? 1000;
    for (let i = 0; i < options.slots; i++) {
      this.#places.push(this.#spawn());
      this.#turns.push(Promise.resolve());
    }
    const { maxResidentBytes } = options;
    if (maxResidentBytes === undefined) return;
    this.#weighing = setInterval(() => {
      for (const place of this.#places.keys()) void this.#weigh(place, maxResidentBytes);
    }, weighEveryMs);
  }

  /** Loads versions into every slot. Resolves to a reply for each, also for those that no slot can load. */
  async load(requests: readonly LoadRequest[]): Promise<LoadReply[]> {
    this.#loads.want(requests);
    if (this.#serving) for (let i = 0; i < this.#places.length; i++) await this.#renew(i);
    else {
      this.#serving = true;
      await Promise.all(this.#places.map((_, i) => this.#renew(i)));
    }
    return requests.map(({ key }) => this.#loads.takeReply(key));
  }

  /** Unloads a version from every slot and frees its memory. No run of it may follow. */
  unload(modelKey: number): void {
    this.#loads.forget(modelKey);
    this.#lacking.delete(modelKey);
    for (const slot of this.#processes) {
      if (slot.loaded.delete(modelKey) && slot.state !== "gone") slot.handle.unload(modelKey);
    }
  }

  /** Whether an idle slot holds this version. */
  hasIdle(modelKey: number): boolean {
    return this.#places.some((slot) => isFree(slot) && slot.loaded.has(modelKey));
  }

  /** Whether any slot holds this version, or is expected to. */
  holds(modelKey: number): boolean {
    if (!this.#lacking.has(modelKey)) return true;
    return this.#places.some((slot) => slot.state !== "gone" && slot.loaded.has(modelKey));
  }

  get alive(): number {
    return this.#places.filter((slot) => slot.state === "idle" || slot.state === "busy").length;
  }

  get busy(): number {
    return this.#places.filter((slot) => slot.state === "busy").length;
  }

  get pids(): number[] {
    return this.#places.flatMap((slot) => slot.handle.pid ?? []);
  }

  /** Makes a call on an idle slot that holds this version; only after `hasIdle`. Rejects as the call does. */
  async use<T>(modelKey: number, call: (slot: SlotHandle) => Promise<T>): Promise<T> {
    const slot = this.#places.find((candidate) => isFree(candidate) && candidate.loaded.has(modelKey));
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
    clearInterval(this.#weighing);
    for (const timer of this.#retries.values()) clearTimeout(timer);
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
      ran: false,
      overweight: false,
    };
    this.#processes.add(slot);
    const { nice } = this.#options;
    if (nice !== undefined && handle.pid !== undefined) setPriority(handle.pid, nice);
    const startedAt = Date.now();
    void handle.exited.then((how) => {
      const wasServing = slot.state !== "starting";
      slot.state = "gone";
      this.#processes.delete(slot);
      const place = this.#places.indexOf(slot);
      if (this.#closing || slot.leaving || !wasServing || place < 0) return;
      this.#options.log.warn("slot ended and is replaced", { slot_pid: handle.pid, how });
      this.#options.onDeath("crash");
      if (Date.now() - startedAt < longestRestartMs) this.#restartMs = Math.min(longestRestartMs, this.#restartMs * 2);
      setTimeout(() => void this.#renew(place), this.#restartMs - shortestRestartMs).unref();
    });
    return slot;
  }

  /**
   * Replaces a slot over the memory limit, once it has run something: one that was over it from the start would be
   * again.
   */
  async #weigh(place: number, limitBytes: number): Promise<void> {
    const slot = this.#places[place] as Slot;
    if (!slot.ran || slot.overweight || slot.handle.pid === undefined) return;
    const bytes = await residentBytes(slot.handle.pid);
    if (bytes === null || bytes <= limitBytes || slot.overweight) return;
    slot.overweight = true;
    const { pid } = slot.handle;
    this.#options.log.warn("slot holds too much memory and is replaced", { slot_pid: pid, bytes, limitBytes });
    await this.#renew(place);
  }

  /** Ensures that the slot at a place lives and holds every wanted version; one change of a place at a time. */
  #renew(place: number): Promise<void> {
    const turn = (this.#turns[place] as Promise<void>).then(() => this.#replace(place));
    this.#turns[place] = turn;
    return turn;
  }

  async #replace(place: number): Promise<void> {
    const before = this.#places[place] as Slot;
    const serves = before.state === "idle" || before.state === "busy";
    if (this.#closing || (serves && !before.overweight && this.#loads.lackedBy(before).length === 0)) return;
    const next = await this.#prepare(before.state === "starting" ? before : this.#spawn());
    if (next === null) return;
    const isAlive = () => before !== next && (before.state === "idle" || before.state === "busy");
    const gained = [...next.loaded].filter((key) => !before.loaded.has(key));
    const lost = [...before.loaded].some((key) => this.#loads.find(key) !== undefined && !next.loaded.has(key));
    if (isAlive() && (lost || (gained.length === 0 && !before.overweight))) {
      // The old slot holds a version that no new one can load, such as a draining one whose files are gone. So it stays
      // and loads the new versions itself, after another process has shown that they can be loaded.
      void this.#release(next);
      await this.#loadInPlace(before, gained);
    } else {
      next.state = "idle";
      this.#places[place] = next;
      if (before !== next) void this.#release(before);
      this.#options.onIdle();
    }
    const lacks = this.#loads.lackedBy(next);
    for (const { key } of this.#loads.all()) this.#lacking.delete(key);
    for (const { key } of lacks) this.#lacking.add(key);
    if (this.#loads.lackedBy(this.#places[place] as Slot).length > 0) this.#retryLater(place, lacks);
    else this.#retryMs = this.#options.retryMs ?? 1000;
  }

  async #loadInPlace(slot: Slot, keys: readonly number[]): Promise<void> {
    const requests = keys.flatMap((key) => this.#loads.find(key) ?? []);
    if (requests.length === 0) return;
    if (slot.state === "busy") {
      await new Promise<void>((resolve) => {
        slot.reserved = resolve;
      });
      slot.reserved = null;
    }
    if (slot.state !== "idle") return;
    slot.state = "busy";
    try {
      for (const request of requests) await this.#loads.loadInto(slot, request, new Set());
      slot.state = "idle";
      this.#options.onIdle();
    } catch (fault) {
      slot.state = "gone";
      if (!(fault instanceof SlotDiedError)) throw fault;
    }
  }

  #retryLater(place: number, lacks: readonly LoadRequest[]): void {
    const versions = lacks.map(({ model, version }) => `${model}/${version}`);
    this.#options.log.warn("slot lacks versions, trying again", { versions, retry_ms: this.#retryMs });
    clearTimeout(this.#retries.get(place));
    const timer = setTimeout(() => void this.#renew(place), this.#retryMs);
    this.#retries.set(place, timer.unref());
    this.#retryMs = Math.min(60_000, this.#retryMs * 2);
  }

  /** Ends a process that has left service: at once where it is idle, else with its current run. */
  async #release(slot: Slot): Promise<void> {
    slot.leaving = true;
    if (slot.state !== "busy" && slot.state !== "gone") await slot.handle.close();
  }

  /** Loads every wanted version into a process, or into its successor if it dies; null when the pool closes. */
  async #prepare(first: Slot): Promise<Slot | null> {
    const without = new Set<number>();
    let slot = first;
    for (let blameless = 0; ; ) {
      try {
        for (const request of this.#loads.all()) {
          if (slot.loaded.has(request.key) || without.has(request.key)) continue;
          if (slot.state === "gone" && blameless < deathsWithoutBlame) {
            blameless += 1;
            await delay(shortestRestartMs * 2 ** blameless, undefined, { ref: false });
            throw new SlotDiedError("crash", "The slot ended before its first call.");
          }
          await this.#loads.loadInto(slot, request, without);
        }
        return this.#closing ? null : slot;
      } catch (fault) {
        if (!(fault instanceof SlotDiedError)) throw fault;
        if (this.#closing) return null;
        slot = this.#spawn();
      }
    }
  }
}
