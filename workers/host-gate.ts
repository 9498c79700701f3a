interface HostState {
  failures: number;
  /** Until when nothing goes to it; after that, one probe. */
  pausedUntil: number;
  inFlight: number;
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
const shortestPauseMs = 5000;
const longestPauseMs = 300_000;
const knownHosts = 20_000;

/**
 * Who may be called now. A host that fails five times in a row is paused; when the pause is over, one try goes through
 * as a probe, and its end decides between open and a longer pause. Hosts that are not proven share a part of the places,
 * and those of them that failed before a small part of that, so that dead ones leave the others theirs.
 */
export class HostGate {
  readonly #limits: { proven: number; stranger: number; failing: number };
  readonly #perHost: number;
  readonly #hosts = new Map<string, HostState>();
  readonly #inFlight = { proven: 0, stranger: 0, failing: 0 };

  constructor(options: { strangersAtOnce: number; failingAtOnce: number; perHost: number }) {
    const { failingAtOnce, perHost, strangersAtOnce } = options;
    this.#limits = { proven: Number.POSITIVE_INFINITY, stranger: strangersAtOnce, failing: failingAtOnce };
    this.#perHost = perHost;
  }

  /** Takes a place for a try, or says how many ms to wait before asking again. */
  enter(host: string, now: number): Place | { waitMs: number } {
    const state = this.#hosts.get(host) ?? { failures: 0, pausedUntil: 0, inFlight: 0, proven: false };
    if (state.pausedUntil > now) return { waitMs: state.pausedUntil - now };
    const probing = state.failures >= failuresToPause;
    if (state.inFlight >= (probing ? 1 : this.#perHost)) return { waitMs: probing ? 1000 : 50 };
    const share = state.proven ? "proven" : state.failures > 0 ? "failing" : "stranger";
    if (this.#inFlight[share] >= this.#limits[share]) return { waitMs: 250 };
    this.#inFlight[share] += 1;
    state.inFlight += 1;
    // Moved to the end, so that the first is the one that was called longest ago.
    this.#hosts.delete(host);
    this.#hosts.set(host, state);
    this.#forgetOldest();
    return { host, share };
  }

  /** Gives the place back; `answered` is false where the host gave no answer, or one that says that it cannot (5xx). */
  leave({ host, share }: Place, answered: boolean, now: number): void {
    this.#inFlight[share] -= 1;
    const state = this.#hosts.get(host);
    if (state === undefined) return;
    state.inFlight -= 1;
    state.failures = answered ? 0 : state.failures + 1;
    if (answered) state.proven = true;
    if (state.failures < failuresToPause) return;
    state.proven = false;
    const pauseMs = Math.min(longestPauseMs, shortestPauseMs * 2 ** Math.min(10, state.failures - failuresToPause));
    state.pausedUntil = now + pauseMs * (0.75 + Math.random() / 2);
  }

  /** Hosts that nothing goes to now. */
  paused(now: number): number {
    let count = 0;
    for (const state of this.#hosts.values()) if (state.pausedUntil > now) count += 1;
    return count;
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
