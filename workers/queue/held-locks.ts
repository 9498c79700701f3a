import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { HoldLimit } from "./hold-limit.js";

/** The lock of a job that this worker holds. */
export interface HeldLock {
  id: string;
  token: string;
}

interface LockManager {
  closed: boolean;
  lockRenewalTimer: NodeJS.Timeout | undefined;
  readonly trackedJobs: ReadonlyMap<string, { token: string }>;
  untrackJob(id: string): void;
  startLockExtenderTimer(): void;
}

/** Private members of BullMQ's worker; its version is pinned. */
interface Internals {
  lockManager: LockManager;
  extendJobLocks(ids: string[], tokens: string[], durationMs: number): Promise<string[]>;
  emit(event: "error", error: Error): boolean;
}

interface HeldLocksOptions {
  lockMs: number;
  clock: Clock;
  /** Jobs that were taken and not begun. */
  stocked(): readonly HeldLock[];
  /** Told how many locks were lost: their jobs are taken by other workers, and run again. */
  onLost(count: number): void;
  /** Called when more jobs, or fewer, may be held. */
  onLimit(): void;
}

/**
 * Renews the locks of a worker's jobs by elapsed time alone, also of those that were taken and not begun, four times in
 * the life of a lock. How late a renewal is decides how many jobs the worker may hold; see `HoldLimit`. This replaces
 * the timer of BullMQ's lock manager.
 */
export class HeldLocks {
  readonly limit: HoldLimit;
  readonly #worker: Internals;
  readonly #options: HeldLocksOptions;
  /** When the last renewal that succeeded began, by the store's clock. */
  #renewedAt = 0;

  constructor(worker: object, options: HeldLocksOptions) {
    this.#worker = worker as Internals;
    this.#options = options;
    const everyMs = options.lockMs / 4;
    this.limit = new HoldLimit({ everyMs });
    const { lockManager } = this.#worker;
    lockManager.startLockExtenderTimer = () => {
      clearTimeout(lockManager.lockRenewalTimer);
      if (lockManager.closed) return;
      this.limit.due();
      lockManager.lockRenewalTimer = setTimeout(async () => {
        await this.#renew();
        lockManager.startLockExtenderTimer();
      }, everyMs);
    };
    // BullMQ's own timer may have started.
    if (lockManager.lockRenewalTimer !== undefined) lockManager.startLockExtenderTimer();
  }

  /** Whether a job's lock is sure to be held still, by the last renewal or its take. */
  holds(id: string, takenAt: number): boolean {
    const { clock, lockMs } = this.#options;
    if (!this.#worker.lockManager.trackedJobs.has(id)) return false;
    return clock.now() - Math.max(this.#renewedAt, takenAt) < lockMs;
  }

  async #renew(): Promise<void> {
    const { lockManager } = this.#worker;
    const { clock, lockMs, onLimit, onLost, stocked } = this.#options;
    const held = new Map<string, string>();
    for (const { id, token } of stocked()) held.set(id, token);
    for (const [id, { token }] of lockManager.trackedJobs) held.set(id, token);
    let refused: string[] = [];
    const begunAt = clock.now();
    try {
      if (held.size > 0) refused = await this.#worker.extendJobLocks([...held.keys()], [...held.values()], lockMs);
      this.#renewedAt = begunAt;
    } catch (error) {
      this.#worker.emit("error", error as Error);
    }
    // A job that ended meanwhile, or was taken anew, has lost nothing.
    const lost = refused.filter((id) => lockManager.trackedJobs.get(id)?.token === held.get(id));
    for (const id of lost) lockManager.untrackJob(id);
    const before = this.limit.jobs;
    this.limit.renewed(held.size, lost.length > 0);
    if (lost.length > 0) onLost(lost.length);
    if (this.limit.jobs !== before) onLimit();
  }
}
