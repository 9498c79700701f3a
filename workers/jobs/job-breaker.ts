import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Outcome } from "../runs/work.js";

/** The part of a breaker that processors of jobs use. */
export type JobBreaker = Pick<Breaker, "admit" | "waitMs" | "recordSuccess" | "abandonProbe" | "recordDeath">;

/** The state of a breaker. */
export interface BreakerState {
  state: "closed" | "open" | "half_open";
  /** Whether new requests are refused. */
  refuses: boolean;
  /** Time of the next probe, in ms since the epoch. */
  retryAt: number;
}

/** A job that ran alone in a slot that died or timed out. */
export interface Death {
  id: string;
  owner: string;
  /** This was its last attempt. */
  last: boolean;
}

export interface BreakerOptions {
  /** Runs the version's own sample before all other inputs; null where the manifest has none. */
  trySample: (() => Promise<Outcome["kind"]>) | null;
  onChange(state: BreakerState): void;
  log: Logger;
  /** First period of being open, in ms. */
  openMs: number;
  clock: Pick<Clock, "now">;
}

/** Deaths in a row after which the sample is run, or the owners are counted. */
const deathsToAsk = 3;
const longestOpenMs = 60_000;
/** Postponed jobs go behind others, and another worker may take them. */
const shortestWaitMs = 1000;
const longestWaitMs = 5000;

/**
 * The breaker of one version on one worker. Only the version's own faults open it, never an input's:
 * - Where the manifest has a sample, the sample decides: it is run after three deaths in a row, or before a job would
 *   fail for good. If it succeeds, the inputs are to blame and pay an attempt. If it dies too, they do not pay, and the
 *   breaker opens.
 * - Without a sample, deaths count by owner and prediction. The breaker opens when three predictions have died alone,
 *   not counting those of the owner with the most deaths, and no run has succeeded in between.
 *
 * While it is open nothing of the version is begun. Then the sample, or else one waiting job, is the probe, which
 * closes it or opens it for twice as long, at most a minute. Any successful run closes it.
 */
export class Breaker {
  readonly #options: BreakerOptions;
  #state: BreakerState["state"] = "closed";
  #deaths = 0;
  #diedByOwner = new Map<string, Set<string>>();
  #asking: Promise<Outcome["kind"]> | null = null;
  #retryAt = 0;
  #openMs: number;
  #timer: NodeJS.Timeout | undefined;
  /** Id of the job that is the probe. */
  #probe: string | null = null;

  constructor(options: BreakerOptions) {
    this.#options = options;
    this.#openMs = options.openMs;
  }

  get state(): BreakerState {
    const { trySample } = this.#options;
    return {
      state: this.#state,
      refuses: this.#state === "open" || (this.#state === "half_open" && trySample !== null),
      retryAt: this.#retryAt,
    };
  }

  /** Number of jobs of the version that may be taken now. */
  get room(): number {
    if (this.#state === "closed") return Number.POSITIVE_INFINITY;
    return this.#awaitsJob ? 1 : 0;
  }

  /** Delay of a postponed job, in ms. */
  get waitMs(): number {
    return Math.min(longestWaitMs, Math.max(shortestWaitMs, this.#retryAt - this.#options.clock.now()));
  }

  /** Whether a job may begin, and whether it is the probe, which runs alone. */
  admit(id: string): "run" | "probe" | "wait" {
    if (this.#state === "closed") return "run";
    if (!this.#awaitsJob && this.#probe !== id) return "wait";
    this.#probe = id;
    return "probe";
  }

  /** A job has run, with any outcome, and its slot is alive. */
  recordSuccess(): void {
    if (this.#deaths > 0) {
      this.#deaths = 0;
      this.#diedByOwner.clear();
    }
    if (this.#state !== "closed") this.#close();
  }

  /** A job was given back without a conclusive run. */
  abandonProbe(id: string): void {
    if (this.#probe === id) this.#probe = null;
  }

  /** A job died alone; resolves to whether it is the job's fault and costs it an attempt. */
  async recordDeath(death: Death): Promise<boolean> {
    this.#deaths += 1;
    if (this.#state !== "closed") {
      const wasProbe = this.#probe === death.id;
      if (wasProbe) this.#open();
      // A probe pays, or one bad input would be tried for ever.
      return wasProbe;
    }
    if (this.#options.trySample === null) {
      if (this.#countOwners(death)) this.#open();
      return this.#state === "closed";
    }
    if (this.#deaths < deathsToAsk && !death.last) return true;
    return (await this.#ask()) === "done";
  }

  /** Cancels further probes. May be called twice. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#state = "closed";
  }

  get #awaitsJob(): boolean {
    return this.#state === "half_open" && this.#options.trySample === null && this.#probe === null;
  }

  #countOwners({ id, owner }: Death): boolean {
    const ids = this.#diedByOwner.get(owner) ?? new Set();
    if (ids.size < deathsToAsk) ids.add(id);
    this.#diedByOwner.set(owner, ids);
    const counts = [...this.#diedByOwner.values()].map(({ size }) => size);
    return counts.reduce((sum, count) => sum + count, 0) - Math.max(...counts) >= deathsToAsk;
  }

  /** Runs the sample, once for all concurrent calls. */
  #ask(): Promise<Outcome["kind"]> {
    const trySample = this.#options.trySample as NonNullable<BreakerOptions["trySample"]>;
    this.#asking ??= trySample()
      .then((kind) => {
        if (kind === "done") this.recordSuccess();
        else if (kind === "blamed") this.#open();
        return kind;
      })
      .finally(() => {
        this.#asking = null;
      });
    return this.#asking;
  }

  #open(): void {
    if (this.#state !== "closed") this.#openMs = Math.min(longestOpenMs, 2 * this.#openMs);
    this.#options.log.error("breaker opens", { deaths: this.#deaths, open_ms: this.#openMs });
    this.#waitAndTry();
  }

  #waitAndTry(): void {
    this.#probe = null;
    this.#retryAt = this.#options.clock.now() + this.#openMs;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#try(), this.#openMs).unref();
    this.#change("open");
  }

  async #try(): Promise<void> {
    this.#change("half_open");
    if (this.#options.trySample === null) return;
    const kind = await this.#ask();
    // A sample that could not be run is inconclusive; a successful run may have closed the breaker meanwhile.
    if (kind !== "done" && kind !== "blamed" && this.#state === "half_open" && this.#timer) this.#waitAndTry();
  }

  #close(): void {
    this.close();
    this.#probe = null;
    this.#openMs = this.#options.openMs;
    this.#options.log.info("breaker closes", {});
    this.#options.onChange(this.state);
  }

  #change(state: BreakerState["state"]): void {
    this.#state = state;
    this.#options.onChange(this.state);
  }
}
