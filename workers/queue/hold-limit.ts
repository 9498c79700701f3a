/** Jobs that a worker may hold at first, before any renewal has shown how many it can. */
const firstLimit = 64;
const highestLimit = 4096;

/**
 * The number of jobs of one queue that a worker may hold, by how well it renews their locks. It doubles with each
 * renewal in time that had use for it, and halves with one that was late or came too late for a lock. So a worker short
 * of CPU holds few jobs, and none is lost to another worker for want of a renewal.
 */
export class HoldLimit {
  readonly #everyMs: number;
  readonly #now: () => number;
  #limit = firstLimit;
  #dueAt: number | null = null;

  /** `everyMs`: the interval of renewals, a quarter of a lock's life. `now`: ms of any steady clock. */
  constructor({ everyMs, now = () => performance.now() }: { everyMs: number; now?: () => number }) {
    this.#everyMs = everyMs;
    this.#now = now;
  }

  get jobs(): number {
    return this.#limit;
  }

  /** Whether a renewal is so late that nothing more may be taken before it. */
  get isLate(): boolean {
    return this.#dueAt !== null && this.#now() - this.#dueAt > this.#everyMs;
  }

  /** A renewal is due in one interval from now. */
  due(): void {
    this.#dueAt = this.#now() + this.#everyMs;
  }

  /** A renewal of that many locks has ended; `lost`: some were gone. */
  renewed(held: number, lost: boolean): void {
    const lateMs = this.#dueAt === null ? 0 : this.#now() - this.#dueAt;
    if (lost || lateMs > this.#everyMs) this.#limit = Math.max(1, Math.floor(Math.min(this.#limit, 2 * held) / 2));
    else if (lateMs < this.#everyMs / 2 && 2 * held > this.#limit)
      this.#limit = Math.min(highestLimit, 2 * this.#limit);
  }
}
