import type { Logger } from "@millrace/shared/service/log.js";
import type { LoadReply, LoadRequest } from "./load-request.js";
import type { Slot } from "./slot.js";
import type { SlotDiedError } from "./slot-handle.js";

/** Deadline of loading and warming up one version. */
const loadTimeoutMs = 120_000;
/** Deaths of a process that loads a version, held by no slot yet, after which the version counts as the cause. */
const deathsToRefuse = 2;

/**
 * The versions that every slot of a pool must hold. A version that a slot has held once is good: a slot that cannot
 * load it goes without. A version that no slot has held is refused if it cannot be loaded or kills the processes that
 * load it.
 */
export class VersionLoads {
  readonly #log: Logger;
  readonly #wanted = new Map<number, LoadRequest>();
  readonly #good = new Map<number, LoadReply>();
  readonly #refused = new Map<number, string>();
  readonly #deaths = new Map<number, number>();
  /** Versions that are loaded without trying made inputs, because a process died while it may have tried them. */
  readonly #untried = new Set<number>();
  #closed = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  want(requests: readonly LoadRequest[]): void {
    for (const request of requests) this.#wanted.set(request.key, request);
  }

  /** From now on no version is blamed for a death. */
  close(): void {
    this.#closed = true;
  }

  /** Drops a version. */
  forget(key: number): void {
    this.#wanted.delete(key);
    this.#good.delete(key);
    this.#untried.delete(key);
  }

  /** The request of a wanted version. */
  find(key: number): LoadRequest | undefined {
    return this.#wanted.get(key);
  }

  /** The requests of all wanted versions. */
  all(): IterableIterator<LoadRequest> {
    return this.#wanted.values();
  }

  /** The wanted versions that a slot does not hold. */
  lackedBy({ loaded }: Pick<Slot, "loaded">): LoadRequest[] {
    return [...this.#wanted.values()].filter(({ key }) => !loaded.has(key));
  }

  /** The outcome of loading a version; it can be taken once. */
  takeReply(key: number): LoadReply {
    const good = this.#good.get(key);
    const reason = this.#refused.get(key) ?? "the worker is stopping";
    const died = this.#deaths.has(key);
    this.#refused.delete(key);
    this.#deaths.delete(key);
    return good ?? { key, ok: false, reason, ...(died && { died }) };
  }

  /**
   * Loads a version into a slot. On failure the version is refused if no slot has held it before; else it is added to
   * `without` and the slot goes without it. Rejects with a SlotDiedError.
   */
  async loadInto(slot: Pick<Slot, "handle" | "loaded">, request: LoadRequest, without: Set<number>): Promise<void> {
    const { key, model, version } = request;
    const fail = (reason: string, forGood: boolean) => {
      if (this.#good.has(key)) {
        this.#log.warn("slot failed to load a version", { model, version, reason });
        without.add(key);
      } else if (forGood) {
        this.#refused.set(key, reason);
        this.#wanted.delete(key);
      }
    };
    const triesMade = !this.#untried.has(key);
    try {
      const reply = await slot.handle.load({ ...request, triesMade }, loadTimeoutMs);
      if (!reply.ok) fail(reply.reason, true);
      else if (!this.#wanted.has(key)) slot.handle.unload(key);
      else {
        slot.loaded.add(key);
        this.#good.set(key, reply);
        this.#refused.delete(key);
      }
    } catch (fault) {
      const { reason } = fault as SlotDiedError;
      if (reason === "closed" || this.#closed) throw fault;
      if (reason === "crash" && triesMade) {
        this.#untried.add(key);
        throw fault;
      }
      const deaths = (this.#deaths.get(key) ?? 0) + 1;
      this.#deaths.set(key, deaths);
      if (reason === "timeout") fail(`loading it took over ${loadTimeoutMs} ms`, true);
      else fail("loading it killed the process", deaths >= deathsToRefuse);
      throw fault;
    }
  }
}
