import type { Logger } from "@millrace/shared/service/log.js";
import type { LoadReply, LoadRequest } from "./load-request.js";
import type { Slot } from "./slot.js";
import { slotMemoryVariable } from "./slot-command.js";
import type { SlotDiedError } from "./slot-handle.js";

/** Deaths of a process that loads a version, held by no slot yet, after which the version counts as the cause. */
const deathsToRefuse = 2;
/** A load is slow from this many times the longest good one on. */
const slowFactor = 4;

/** Told of versions while they are loaded. */
export interface LoadListener {
  /** The outcome of a version: a slot serves it, or it is refused. Once for each. */
  decided(reply: LoadReply): void;
  /** A version is loaded in a process of its own from now on, so that it holds up no other. */
  setAside(key: number): void;
}

interface Wanted {
  request: LoadRequest;
  listener: LoadListener;
  /** The first good reply of a slot; null before. */
  good: LoadReply | null;
  /** Whether `decided` was called. */
  told: boolean;
  /** Processes that load it now. */
  loading: Set<Slot["handle"]>;
  /** Loaded in a process of its own, because it was slow or killed a process. */
  aside: boolean;
  deaths: number;
  /** Loaded without trying made inputs, because a process died while it may have tried them. */
  untried: boolean;
}

/**
 * The versions that every slot of a pool must hold. A version that a slot has held once is good: a slot that cannot
 * load it goes without. Another one that is slow or kills its process is set aside: it is loaded in a process of its
 * own, and refused there if it cannot be loaded, kills two processes, or takes longer than its manifest allows.
 */
export class VersionLoads {
  readonly #log: Logger;
  readonly #slowMs: number;
  readonly #onSetAside: (request: LoadRequest) => void;
  readonly #wanted = new Map<number, Wanted>();
  #longestMs = 0;
  #closed = false;

  /** `slowMs`: the duration of a load from which on it may be set aside. */
  constructor(log: Logger, slowMs: number, onSetAside: (request: LoadRequest) => void) {
    this.#log = log;
    this.#slowMs = slowMs;
    this.#onSetAside = onSetAside;
  }

  want(request: LoadRequest, listener: LoadListener): void {
    const fresh = { good: null, told: false, aside: false, deaths: 0, untried: false };
    this.#wanted.set(request.key, { request, listener, loading: new Set(), ...fresh });
    if (this.#closed) this.#refuse(request.key, "the worker is stopping");
  }

  /** From now on no version is blamed for a death; undecided ones are told that the worker stops. */
  close(): void {
    this.#closed = true;
    for (const { request } of this.#wanted.values()) this.#refuse(request.key, "the worker is stopping");
  }

  /** Drops a version, and ends processes that load it for the first time. */
  forget(key: number): void {
    const wanted = this.#wanted.get(key);
    if (wanted === undefined) return;
    if (wanted.good === null) for (const handle of wanted.loading) handle.abandon("closed");
    this.#refuse(key, "it was unloaded meanwhile");
    this.#wanted.delete(key);
  }

  /** Whether a version is still wanted. */
  wants(key: number): boolean {
    return this.#wanted.has(key);
  }

  /** Whether a version waits for a process of its own, or is loaded in one. */
  isAside(key: number): boolean {
    const wanted = this.#wanted.get(key);
    return wanted?.good === null && wanted.aside;
  }

  find(key: number): LoadRequest | undefined {
    return this.#wanted.get(key)?.request;
  }

  /** The wanted versions that a slot does not hold and should, which leaves out those that are set aside. */
  lackedBy({ loaded }: Pick<Slot, "loaded">): LoadRequest[] {
    return [...this.#wanted.values()]
      .filter(({ aside, good, request }) => !loaded.has(request.key) && (good !== null || !aside))
      .map(({ request }) => request);
  }

  /**
   * The next version for a process: new ones that no other process is loading come first, so that all are known early;
   * undefined when it holds all that it should.
   */
  nextFor(slot: Pick<Slot, "loaded">, without: ReadonlySet<number>): LoadRequest | undefined {
    const lacked = this.lackedBy(slot).filter(({ key }) => !without.has(key));
    const rank = ({ key }: LoadRequest) => {
      const { good, loading } = this.#wanted.get(key) as Wanted;
      if (good !== null) return 1;
      return loading.size === 0 ? 0 : 2;
    };
    return [0, 1, 2].flatMap((wanted) => lacked.filter((request) => rank(request) === wanted))[0];
  }

  /** Tells that versions are served, once a slot in service holds them. */
  tellServed({ loaded }: Pick<Slot, "loaded">): void {
    for (const key of loaded) {
      const wanted = this.#wanted.get(key);
      if (wanted === undefined || wanted.good === null || wanted.told) continue;
      wanted.told = true;
      wanted.listener.decided(wanted.good);
    }
  }

  /**
   * Loads a version into a slot. On failure the version is refused if no slot has held it before; else it is added to
   * `without` and the slot goes without it. Rejects with a SlotDiedError.
   */
  async loadInto(slot: Pick<Slot, "handle" | "loaded">, request: LoadRequest, without: Set<number>): Promise<void> {
    const { key } = request;
    const { handle } = slot;
    const wanted = this.#wanted.get(key);
    if (wanted === undefined) return;
    const limitMs = request.manifest.session.load_timeout_ms;
    const triesMade = !wanted.untried;
    const begun = performance.now();
    wanted.loading.add(handle);
    // Nothing is gained by a process of its own while no other version waits.
    const slow = setInterval(() => {
      const ms = performance.now() - begun;
      if (wanted.good !== null || wanted.aside || this.#closed || !this.#hasOthers(key)) return;
      if (ms >= Math.max(this.#slowMs, slowFactor * this.#longestMs)) this.#setAside(wanted);
    }, this.#slowMs);
    try {
      const reply = await handle.load({ ...request, triesMade }, limitMs);
      if (this.#wanted.get(key) !== wanted) handle.unload(key);
      else if (!reply.ok) this.#fail(wanted, reply.reason, true, without);
      else {
        slot.loaded.add(key);
        wanted.good ??= reply;
        this.#longestMs = Math.max(this.#longestMs, performance.now() - begun);
      }
    } catch (fault) {
      this.#blame(wanted, (fault as SlotDiedError).reason, triesMade, without);
      throw fault;
    } finally {
      clearInterval(slow);
      wanted.loading.delete(handle);
    }
  }

  /** Draws the conclusion from the death of a process that was loading a version. */
  #blame(wanted: Wanted, reason: SlotDiedError["reason"], triedMade: boolean, without: Set<number>): void {
    const { key, manifest } = wanted.request;
    if (reason === "closed" || reason === "slow" || this.#closed || this.#wanted.get(key) !== wanted) return;
    if (reason === "crash" && triedMade) {
      wanted.untried = true;
      this.#setAside(wanted);
      return;
    }
    wanted.deaths += 1;
    const { load_timeout_ms: limitMs } = manifest.session;
    if (reason === "timeout")
      this.#fail(wanted, `loading it took over ${limitMs} ms (session.load_timeout_ms)`, true, without);
    else if (reason === "memory")
      this.#fail(wanted, `loading it takes more memory than ${slotMemoryVariable} allows`, true, without);
    else this.#fail(wanted, "loading it killed the process", wanted.deaths >= deathsToRefuse, without);
    this.#setAside(wanted);
  }

  #fail(wanted: Wanted, reason: string, forGood: boolean, without: Set<number>): void {
    const { key, model, version } = wanted.request;
    if (wanted.good !== null) {
      this.#log.warn("slot failed to load a version", { model, version, reason });
      without.add(key);
    } else if (forGood) {
      this.#refuse(key, reason);
      this.#wanted.delete(key);
    }
  }

  #refuse(key: number, reason: string): void {
    const wanted = this.#wanted.get(key);
    if (wanted === undefined || wanted.told) return;
    wanted.told = true;
    wanted.listener.decided({ key, ok: false, reason, ...(wanted.deaths > 0 && { died: true }) });
  }

  #setAside(wanted: Wanted): void {
    const { key } = wanted.request;
    if (wanted.aside || wanted.good !== null || this.#wanted.get(key) !== wanted) return;
    wanted.aside = true;
    for (const handle of wanted.loading) handle.abandon("slow");
    wanted.listener.setAside(key);
    this.#onSetAside(wanted.request);
  }

  /** Whether there are versions that the load of this one holds up. */
  #hasOthers(key: number): boolean {
    return [...this.#wanted.values()].some(({ aside, good, request }) => {
      return request.key !== key && (good !== null || !aside);
    });
  }
}
