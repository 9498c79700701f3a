interface HostState {
  failures: number;
  /** Until when nothing goes to it; after that, one probe. */
  pausedUntil: number;
  inFlight: number;
  /** The shortest that it lately took to answer, in ms; null before its first answer. */
  answerMs: number | null;
  /** Tries that wait for a place. */
  waiting: (() => void)[];
  /** It answered, and has not failed so often since that it is paused. */
  proven: boolean;
}

/** The right to one try, to be given back. */
export interface Place {
  host: string;
  /** Which share of the places it takes: proven hosts have them all. */
  share: "proven" | "stranger" | "failing";
}

const failuresToPause = 5;
const longestPauseMs = 300_000;
const knownHosts = 20_000;
/** Tries of one host that may wait for a place here; those beyond it wait in Redis. */
const waitingPerHost = 64;
/** Tries of hosts without a place that come back to ask. */
const turnsPerSecond = 500;
const shortestTurnMs = 250;
const fewestPerHost = 16;
/** Tries in flight for each ms that a host takes to answer: about 2,000 a second and host. */
const triesPerAnswerMs = 2;
/** A host that has become slower is noticed within some dozens of answers. */
const answerMsGrowth = 1.1;

/**
 * Who may be called now. A host that fails five times in a row is paused; when the pause is over, one try goes through
 * as a probe, and its end decides between open and a longer pause. Hosts that are not proven share a part of the places,
 * and those of them that failed before a small part of that, so that dead ones leave the others theirs.
 */
export class HostGate {
  readonly #limits: { proven: number; stranger: number; failing: number };
  readonly #perHost: number;
  /** The first pause of a host, in ms. */
  readonly #pauseMs: number;
  readonly #hosts = new Map<string, HostState>();
  #nextTurnAt = 0;
  readonly #inFlight = { proven: 0, stranger: 0, failing: 0 };

  constructor(options: { strangersAtOnce: number; failingAtOnce: number; perHost: number; pauseMs: number }) {
    const { failingAtOnce, pauseMs, perHost, strangersAtOnce } = options;
    this.#limits = { proven: Number.POSITIVE_INFINITY, stranger: strangersAtOnce, failing: failingAtOnce };
    this.#perHost = perHost;
    this.#pauseMs = pauseMs;
  }

  /** Takes a place for a try, once the host has one, or says how many ms to stay away before asking again. */
  async enter(host: string): Promise<Place | { waitMs: number }> {
    for (;;) {
      const now = Date.now();
      const state = this.#hosts.get(host) ?? newHost();
      if (state.pausedUntil > now) return { waitMs: state.pausedUntil - now };
      const probing = state.failures >= failuresToPause;
      if (probing && state.inFlight > 0) return { waitMs: 1000 };
      const share = state.proven ? "proven" : state.failures > 0 ? "failing" : "stranger";
      if (this.#inFlight[share] >= this.#limits[share]) return { waitMs: this.#turnMs(now) };
      if (state.inFlight < this.#placesOf(state)) {
        this.#inFlight[share] += 1;
        state.inFlight += 1;
        // Moved to the end, so that the first is the one that was called longest ago.
        this.#hosts.delete(host);
        this.#hosts.set(host, state);
        this.#forgetOldest();
        return { host, share };
      }
      if (state.waiting.length >= waitingPerHost) return { waitMs: 100 };
      await new Promise<void>((resolve) => state.waiting.push(resolve));
    }
  }

  /**
   * Gives the place back. `answerMs` is how long the host took to answer; null where it gave no answer, or one that says
   * that it cannot (5xx).
   */
  leave({ host, share }: Place, answerMs: number | null): void {
    const now = Date.now();
    this.#inFlight[share] -= 1;
    const state = this.#hosts.get(host) as HostState;
    state.inFlight -= 1;
    if (answerMs === null) {
      state.failures += 1;
    } else {
      state.failures = 0;
      state.proven = true;
      state.answerMs = Math.min(answerMs, (state.answerMs ?? answerMs) * answerMsGrowth + 1);
    }
    if (state.failures >= failuresToPause) {
      state.proven = false;
      const pauseMs = Math.min(longestPauseMs, this.#pauseMs * 2 ** Math.min(10, state.failures - failuresToPause));
      state.pausedUntil = now + pauseMs * (0.75 + Math.random() / 2);
      for (const wake of state.waiting.splice(0)) wake();
    } else {
      const free = this.#placesOf(state) - state.inFlight;
      for (const wake of state.waiting.splice(0, free)) wake();
    }
  }

  /** Hosts that nothing goes to now. */
  paused(now: number): number {
    let count = 0;
    for (const state of this.#hosts.values()) if (state.pausedUntil > now) count += 1;
    return count;
  }

  /** How long to stay away where many do: each has a moment of its own to come back, or they would do nothing else. */
  #turnMs(now: number): number {
    this.#nextTurnAt = Math.max(now + shortestTurnMs, this.#nextTurnAt + 1000 / turnsPerSecond);
    return this.#nextTurnAt - now;
  }

  #placesOf(state: HostState): number {
    const fitting = Math.ceil((state.answerMs ?? 0) * triesPerAnswerMs);
    return Math.min(this.#perHost, Math.max(fewestPerHost, fitting));
  }

  #forgetOldest(): void {
    if (this.#hosts.size <= knownHosts) return;
    for (const [host, state] of this.#hosts) {
      if (state.inFlight > 0) continue;
      this.#hosts.delete(host);
      return;
    }
  }
}

function newHost(): HostState {
  return { failures: 0, pausedUntil: 0, inFlight: 0, answerMs: null, waiting: [], proven: false };
}
