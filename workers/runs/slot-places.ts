import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "@millrace/shared/service/log.js";
import type { LoadRequest } from "./load-request.js";
import { isServing, type Slot } from "./slot.js";
import { SlotDiedError } from "./slot-handle.js";
import type { VersionLoads } from "./version-loads.js";

const pauseBeforeRespawnMs = 100;
/** Ends of a process before its first load that blame no version. */
const deathsWithoutBlame = 3;

interface SlotPlacesOptions {
  slots: number;
  loads: VersionLoads;
  log: Logger;
  /** First delay before a slot tries again to load a version, in ms. */
  retryMs: number;
  /** Starts a process without a version. */
  spawn(): Slot;
  /** Called when a slot becomes idle. */
  onIdle(): void;
}

/** The places of a pool's slots: fills them with processes that hold every version, and replaces these. */
export class SlotPlaces {
  /** The slot in service at each place. */
  readonly slots: Slot[];
  readonly #options: SlotPlacesOptions;
  /** The chain of changes of each place. */
  readonly #turns: Promise<void>[];
  /** Versions that some slot could not load at its last renewal. */
  readonly #lacking = new Set<number>();
  readonly #retries = new Map<number, NodeJS.Timeout>();
  #retryMs: number;
  /** The passes over all places: the last one, and one that has not begun. */
  #pass: Promise<void> = Promise.resolve();
  #nextPass: Promise<void> | null = null;
  #closing = false;

  constructor(options: SlotPlacesOptions) {
    this.#options = options;
    this.#retryMs = options.retryMs;
    this.slots = Array.from({ length: options.slots }, options.spawn);
    this.#turns = this.slots.map(() => Promise.resolve());
  }

  /** Whether any slot holds this version, or is expected to. */
  holds(modelKey: number): boolean {
    if (!this.#lacking.has(modelKey)) return true;
    return this.slots.some((slot) => slot.state !== "gone" && slot.loaded.has(modelKey));
  }

  forget(modelKey: number): void {
    this.#lacking.delete(modelKey);
  }

  /** Changes nothing any more. */
  close(): void {
    this.#closing = true;
    for (const timer of this.#retries.values()) clearTimeout(timer);
  }

  /**
   * Brings every place up to date: at once those out of service, the others one after the other. A pass that has not
   * begun does for later requests as well.
   */
  renewAll(): Promise<void> {
    this.#nextPass ??= this.#pass.then(async () => {
      this.#nextPass = null;
      const places = [...this.slots.keys()];
      const isOut = (place: number) => !isServing(this.slots[place] as Slot);
      const [out, serving] = [places.filter(isOut), places.filter((place) => !isOut(place))];
      await Promise.all(out.map((place) => this.renew(place)));
      for (const place of serving) await this.renew(place);
    });
    this.#pass = this.#nextPass;
    return this.#nextPass;
  }

  /** Ensures that the slot at a place lives and holds every wanted version; one change of a place at a time. */
  renew(place: number, candidate: Slot | null = null): Promise<void> {
    const turn = (this.#turns[place] as Promise<void>).then(() => this.#replace(place, candidate));
    this.#turns[place] = turn;
    return turn;
  }

  /** Makes a process with a version that was set aside a slot, and gives the version to the others too. */
  async promote(slot: Slot): Promise<void> {
    const lacksMost = this.slots.findIndex((place) => !isServing(place) || place.loaded.size === 0);
    await this.renew(Math.max(0, lacksMost), slot);
    await this.renewAll();
  }

  async #replace(place: number, candidate: Slot | null): Promise<void> {
    const before = this.slots[place] as Slot;
    if (this.#closing) return;
    if (!isServing(before)) {
      if (candidate !== null) this.slots[place] = candidate;
      await this.#fill(place);
    } else if (before.overweight || this.#options.loads.lackedBy(before).length > 0)
      await this.#swap(place, before, candidate);
    else {
      if (candidate !== null) await this.#release(candidate);
      return;
    }
    if (this.#closing) return;
    const slot = this.slots[place] as Slot;
    const lacks = this.#options.loads.lackedBy(slot);
    for (const key of slot.loaded) this.#lacking.delete(key);
    for (const { key } of lacks) this.#lacking.add(key);
    if (lacks.length > 0) this.#retryLater(place, lacks);
    else this.#retryMs = this.#options.retryMs;
  }

  /** Loads every version into the slot of a place, or into its successors if it dies. It serves between two loads. */
  async #fill(place: number): Promise<void> {
    const without = new Set<number>();
    for (let blameless = 0; !this.#closing; ) {
      let slot = this.slots[place] as Slot;
      if (slot.state === "gone" && (slot.loading || slot.loaded.size > 0 || blameless < deathsWithoutBlame)) {
        if (!slot.loading) await delay(pauseBeforeRespawnMs * 2 ** Math.min(++blameless, 6), undefined, { ref: false });
        if (this.#closing) return;
        slot = this.#options.spawn();
        this.slots[place] = slot;
      }
      const request = this.#options.loads.nextFor(slot, without);
      if (request !== undefined) await this.#loadHere(slot, [request], without);
      else return this.#serve(slot);
    }
  }

  /** Loads every version into a process beside the slot in service, which then takes its place. */
  async #swap(place: number, before: Slot, candidate: Slot | null): Promise<void> {
    const next = await this.#prepare(candidate ?? this.#options.spawn());
    if (next === null) return;
    const gained = [...next.loaded].filter((key) => !before.loaded.has(key));
    const lost = [...before.loaded].some((key) => this.#options.loads.wants(key) && !next.loaded.has(key));
    if (isServing(before) && (lost || (gained.length === 0 && !before.overweight))) {
      // The old slot holds a version that no new one can load, such as a draining one whose files are gone. So it stays
      // and loads the new versions itself, after another process has shown that they can be loaded.
      void this.#release(next);
      await this.#loadHere(
        before,
        gained.flatMap((key) => this.#options.loads.find(key) ?? []),
        new Set(),
      );
      if (before.state === "gone") void this.renew(place);
      return;
    }
    this.slots[place] = next;
    void this.#release(before);
    this.#serve(next);
  }

  /** Loads versions into the slot of a place, between its runs. */
  async #loadHere(slot: Slot, requests: readonly LoadRequest[], without: Set<number>): Promise<void> {
    if (requests.length === 0) return;
    if (slot.state === "busy") {
      await new Promise<void>((resolve) => {
        slot.reserved = resolve;
      });
      slot.reserved = null;
    }
    if (slot.state === "gone" && slot.loaded.size > 0) return;
    if (slot.state !== "gone") slot.state = "busy";
    slot.loading = true;
    try {
      for (const request of requests) await this.#options.loads.loadInto(slot, request, without);
      slot.loading = false;
      if (slot.state === "busy") slot.state = "idle";
      this.#serve(slot);
    } catch (fault) {
      slot.state = "gone";
      if (!(fault instanceof SlotDiedError)) throw fault;
    }
  }

  #serve(slot: Slot): void {
    if (slot.state === "starting") slot.state = "idle";
    this.#options.loads.tellServed(slot);
    this.#options.onIdle();
  }

  #retryLater(place: number, lacks: readonly LoadRequest[]): void {
    const versions = lacks.map(({ model, version }) => `${model}/${version}`);
    this.#options.log.warn("slot lacks versions, trying again", { versions, retry_ms: this.#retryMs });
    clearTimeout(this.#retries.get(place));
    const timer = setTimeout(() => void this.renew(place), this.#retryMs);
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
    for (let blameless = 0; !this.#closing; ) {
      try {
        if (slot.state === "gone" && blameless < deathsWithoutBlame) {
          blameless += 1;
          await delay(pauseBeforeRespawnMs * 2 ** blameless, undefined, { ref: false });
          if (!this.#closing) slot = this.#options.spawn();
          continue;
        }
        const request = this.#options.loads.nextFor(slot, without);
        if (request === undefined) return slot;
        await this.#options.loads.loadInto(slot, request, without);
      } catch (fault) {
        if (!(fault instanceof SlotDiedError)) throw fault;
        if (this.#closing) return null;
        slot = this.#options.spawn();
      }
    }
    return null;
  }
}
