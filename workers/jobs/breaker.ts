import type { Logger } from "@millrace/shared/service/log.js";
import type { Outcome } from "../runs/dispatcher.js";

/** What those who run jobs need of a breaker. */
export type JobBreaker = Pick<Breaker, "admit" | "waitMs" | "lived" | "leftOff" | "died">;

/** What a breaker says of itself when it changes. */
export interface BreakerState {
  state: "closed" | "open" | "half_open";
  /** Whether callers are to be turned away. */
  refuses: boolean;
  /** When it is tried next, in ms since the epoch. */
  retryAt: number;
}

/** A job whose slot died or was late with nothing else in it. */
export interface Death {
  id: string;
  owner: string;
  /** It has no attempt left but this one. */
  last: boolean;
}

export interface BreakerOptions {
  /** Runs an input of which it is known that the version takes it, before all others; null where there is none. */
  trySample: (() => Promise<Outcome["kind"]>) | null;
  onChange(state: BreakerState): void;
  log: Logger;
  /** How long it stays open at first, in ms. */
  openMs: number;
}

/** Deaths in a row after which the model itself is asked, or whose owners are counted. */
const deathsToAsk = 3;
const longestOpenMs = 60_000;
/** Jobs that are put off go behind others, and may be for another worker, too. */
const shortestWaitMs = 1000;
const longestWaitMs = 5000;

/**
 * The breaker of one version on one worker. What opens it must be the version's fault, and no input's:
 * - Where the manifest has a sample, that decides: after three deaths in a row, or before a job would fail for good, the
 *   sample is run. If it lives, inputs are to blame and pay; if it dies too, it is not theirs to pay for, and the breaker opens.
 * - Where there is none, deaths count by owner and prediction, and it opens when three predictions have died alone besides
 *   those of the owner with the most of them, with no run in between that lived.
 * While it is open nothing of the version is begun. Then the sample, or else one waiting job, is the probe that closes it or
 * opens it for twice as long, a minute at the most. Any run that lives closes it.
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
  /** The job that is the probe. */
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

  /** How many jobs of the version may be taken now. */
  get room(): number {
    if (this.#state === "closed") return Number.POSITIVE_INFINITY;
    return this.#awaitsJob ? 1 : 0;
  }

  /** For how long a job that may not be begun is put off, in ms. */
  get waitMs(): number {
    return Math.min(longestWaitMs, Math.max(shortestWaitMs, this.#retryAt - Date.now()));
  }

  /** Whether a job may be begun, and whether it is the probe, which runs with nothing else. */
  admit(id: string): "run" | "probe" | "wait" {
    if (this.#state === "closed") return "run";
    if (!this.#awaitsJob && this.#probe !== id) return "wait";
    this.#probe = id;
    return "probe";
  }

  /** A job has run, whatever came out, and its slot lives. */
  lived(): void {
    if (this.#deaths > 0) {
      this.#deaths = 0;
      this.#diedByOwner.clear();
    }
    if (this.#state !== "closed") this.#close();
  }

  /** A job was given back without a run that tells anything. */
  leftOff(id: string): void {
    if (this.#probe === id) this.#probe = null;
  }

  /** A job died alone; resolves to whether it is the job's fault, so that it pays an attempt. */
  async died(death: Death): Promise<boolean> {
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

  /** Tries nothing any more. May be called twice. */
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

  /** Runs the sample, once for all who ask meanwhile. */
  #ask(): Promise<Outcome["kind"]> {
    const trySample = this.#options.trySample as NonNullable<BreakerOptions["trySample"]>;
    this.#asking ??= trySample()
      .then((kind) => {
        if (kind === "done") this.lived();
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
    this.#retryAt = Date.now() + this.#openMs;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#try(), this.#openMs).unref();
    this.#change("open");
  }

  async #try(): Promise<void> {
    this.#change("half_open");
    if (this.#options.trySample === null) return;
    const kind = await this.#ask();
    // It could not be run, which says nothing; a run that lived elsewhere may have closed it.
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
