import type { LoadRequest } from "./load-request.js";
import type { Slot } from "./slot.js";
import { SlotDiedError } from "./slot-handle.js";
import type { VersionLoads } from "./version-loads.js";

/** Processes with a single version each at a time; further versions wait. */
const mostProcesses = 4;

/**
 * Loads versions that were set aside, each in a process of its own, whose death or endless load costs no other version
 * anything. A process that holds its version is handed on, to become a slot.
 */
export class LoneLoads {
  readonly #loads: VersionLoads;
  readonly #spawn: () => Slot;
  readonly #promote: (slot: Slot) => Promise<void>;
  readonly #waiting: LoadRequest[] = [];
  #running = 0;

  constructor(options: { loads: VersionLoads; spawn(): Slot; promote(slot: Slot): Promise<void> }) {
    this.#loads = options.loads;
    this.#spawn = options.spawn;
    this.#promote = options.promote;
  }

  add(request: LoadRequest): void {
    this.#waiting.push(request);
    this.#pump();
  }

  /** Starts no further process. */
  close(): void {
    this.#waiting.length = 0;
  }

  #pump(): void {
    while (this.#running < mostProcesses) {
      const request = this.#waiting.shift();
      if (request === undefined) return;
      this.#running += 1;
      void this.#load(request).finally(() => {
        this.#running -= 1;
        this.#pump();
      });
    }
  }

  async #load(request: LoadRequest): Promise<void> {
    while (this.#loads.isAside(request.key)) {
      const slot = this.#spawn();
      try {
        await this.#loads.loadInto(slot, request, new Set());
      } catch (fault) {
        if (!(fault instanceof SlotDiedError)) throw fault;
        if (fault.reason === "closed") return;
        continue;
      }
      if (slot.loaded.has(request.key)) await this.#promote(slot);
      else await slot.handle.close();
    }
  }
}
