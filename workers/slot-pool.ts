import type { Logger } from "@millrace/shared/log.js";
import type { LoadReply, LoadRequest } from "./load-request.js";
import { type RunReply, SlotDiedError, SlotHandle, type TableReply } from "./slot-handle.js";

/** How long loading and warming up one version may take. */
const loadTimeoutMs = 120_000;
const shortestRestartMs = 100;
const longestRestartMs = 10_000;

export interface SlotPoolOptions {
  slots: number;
  environment: Record<string, string | undefined>;
  log: Logger;
  /** Another program to run in the slots, for tests of the pool itself. */
  program?: string;
  /** Called when a slot becomes idle. */
  onIdle(): void;
  /** Called when a slot process ended that nobody had asked to end. */
  onDeath(reason: SlotDiedError["reason"]): void;
}

interface Slot {
  handle: SlotHandle;
  state: "starting" | "idle" | "busy" | "gone";
  loaded: Set<number>;
}

/**
 * The slots of a worker, each with every model loaded. A slot that dies is replaced, ever more slowly when it keeps
 * dying young; a version that kills a slot while it loads is loaded by none.
 */
export class SlotPool {
  readonly #options: SlotPoolOptions;
  readonly #slots: Slot[] = [];
  readonly #requests = new Map<number, LoadRequest>();
  readonly #refused = new Map<number, string>();
  readonly #replies = new Map<number, LoadReply>();
  #closing = false;
  #restartMs = shortestRestartMs;

  /** Starts the slot processes at once, so that they come up while the worker itself still does. */
  constructor(options: SlotPoolOptions) {
    this.#options = options;
    for (let i = 0; i < options.slots; i++) this.#slots.push(this.#spawn());
  }

  /** Loads versions into every slot. Resolves to a reply for each, also for those that no slot can hold. */
  async load(requests: readonly LoadRequest[]): Promise<LoadReply[]> {
    for (const request of requests) this.#requests.set(request.key, request);
    await Promise.all(this.#slots.map((_, i) => this.#bringUp(i)));
    return requests.map(({ key }) => {
      const reason = this.#refused.get(key);
      return reason === undefined ? (this.#replies.get(key) as LoadReply) : { key, ok: false, reason };
    });
  }

  /** Whether a slot is free that holds this version. */
  hasIdle(modelKey: number): boolean {
    return this.#slots.some((slot) => slot.state === "idle" && slot.loaded.has(modelKey));
  }

  get alive(): number {
    return this.#slots.filter((slot) => slot.state === "idle" || slot.state === "busy").length;
  }

  get busy(): number {
    return this.#slots.filter((slot) => slot.state === "busy").length;
  }

  get pids(): number[] {
    return this.#slots.flatMap((slot) => slot.handle.pid ?? []);
  }

  /** Runs on an idle slot, which `hasIdle` must have shown. Rejects with a SlotDiedError. */
  run(modelKey: number, packs: readonly Buffer[], timeoutMs: number, stop?: AbortSignal): Promise<RunReply> {
    return this.#on(modelKey, (handle) => handle.run(modelKey, packs, timeoutMs, stop));
  }

  /** The same for one pack with many rows of a tabular model. */
  runTable(modelKey: number, pack: Buffer, timeoutMs: number, stop?: AbortSignal): Promise<TableReply> {
    return this.#on(modelKey, (handle) => handle.runTable(modelKey, pack, timeoutMs, stop));
  }

  async #on<T>(modelKey: number, act: (handle: SlotHandle) => Promise<T>): Promise<T> {
    const slot = this.#slots.find((candidate) => candidate.state === "idle" && candidate.loaded.has(modelKey));
    if (slot === undefined) throw new Error("no slot is idle");
    slot.state = "busy";
    try {
      const reply = await act(slot.handle);
      slot.state = "idle";
      this.#restartMs = shortestRestartMs;
      queueMicrotask(this.#options.onIdle);
      return reply;
    } catch (fault) {
      slot.state = "gone";
      throw fault;
    }
  }

  /** Ends all slots; what still runs is rejected as `closed`. May be called twice. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(this.#slots.map((slot) => slot.handle.close()));
  }

  #spawn(): Slot {
    const slot: Slot = {
      handle: new SlotHandle(this.#options.environment, this.#options.program),
      state: "starting",
      loaded: new Set(),
    };
    const bornAt = Date.now();
    void slot.handle.exited.then((how) => {
      const wasRunning = slot.state === "idle" || slot.state === "busy" || slot.state === "gone";
      slot.state = "gone";
      if (this.#closing || !wasRunning) return;
      this.#options.log.warn("slot ended and is replaced", { slot_pid: slot.handle.pid, how });
      this.#options.onDeath("crash");
      if (Date.now() - bornAt < longestRestartMs) this.#restartMs = Math.min(longestRestartMs, this.#restartMs * 2);
      setTimeout(() => this.#replace(slot), this.#restartMs - shortestRestartMs).unref();
    });
    return slot;
  }

  #replace(dead: Slot): void {
    const i = this.#slots.indexOf(dead);
    if (this.#closing || i < 0) return;
    this.#slots[i] = this.#spawn();
    void this.#bringUp(i);
  }

  /** Loads every version that the slot lacks; when one kills it, a new process carries on without that one. */
  async #bringUp(i: number): Promise<void> {
    for (;;) {
      const slot = this.#slots[i] as Slot;
      try {
        for (const request of this.#requests.values()) {
          if (!slot.loaded.has(request.key) && !this.#refused.has(request.key)) await this.#loadInto(slot, request);
        }
        slot.state = "idle";
        this.#options.onIdle();
        return;
      } catch (fault) {
        if (this.#closing || !(fault instanceof SlotDiedError)) return;
        this.#slots[i] = this.#spawn();
      }
    }
  }

  async #loadInto(slot: Slot, request: LoadRequest): Promise<void> {
    try {
      const reply = await slot.handle.load(request, loadTimeoutMs);
      if (reply.ok) {
        slot.loaded.add(request.key);
        this.#replies.set(request.key, reply);
      } else this.#refused.set(request.key, reply.reason);
    } catch (fault) {
      const { reason } = fault as SlotDiedError;
      if (reason !== "closed") {
        this.#refused.set(
          request.key,
          reason === "timeout" ? `loading it took over ${loadTimeoutMs} ms` : "loading it killed the process",
        );
      }
      throw fault;
    }
  }
}
