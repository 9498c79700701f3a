/** Where deliveries go, and whose they are: an owner's receiver that fails must not hold up those of another owner. */
export interface Receiver {
  owner: string;
  host: string;
}

interface HostState {
  failures: number;
  /** End of the pause, after which one probe goes to it. */
  pausedUntil: number;
  inFlight: number;
  /** Shortest recent time to answer, in ms; null before its first answer. */
  answerMs: number | null;
  /** Tries that wait for a place. */
  waiting: (() => void)[];
  /** Whether it has answered and is not paused since. */
  proven: boolean;
}

/** A place for one try; the holder gives it back. */
export interface Place {
  receiver: Receiver;
  /** The share of places that it counts in; proven hosts may use all of them. */
  share: "proven" | "stranger" | "failing";
}

const failuresToPause = 5;
/** Part of the places of unproven or failing hosts that one owner may have. */
const mostOfOneOwner = 0.9;
const longestPauseMs = 300_000;
const knownHosts = 20_000;
/** Most tries of one host that wait for a place here; further ones wait in Redis. */
const waitingPerHost = 64;
/** Tries of hosts without a place that come back later. */
const turnsPerSecond = 500;
const shortestTurnMs = 250;
const fewestPerHost = 16;
/** Concurrent tries for each ms of a host's time to answer: about 2,000 a second and host. */
const triesPerAnswerMs = 2;
/**
 * Share by which the shortest time is raised each answer, so that a slower host is noticed within dozens of answers.
 */
const answerMsGrowth = 1.1;

/**
 * Limits tries by owner and host. A host that fails five times in a row is paused for that owner; then one try is the
 * probe, which ends the pause or doubles it. Unproven hosts share a part of the places, and those that have failed a
 * small part of that, so that dead hosts leave room for others; one owner never has all of such a part.
 */
export class HostGate {
  readonly #limits: { proven: number; stranger: number; failing: number };
  readonly #perHost: number;
  /** The first pause of a host, in ms. */
  readonly #pauseMs: number;
  readonly #hosts = new Map<string, HostState>();
  #nextTurnAt = 0;
  readonly #inFlight = { proven: 0, stranger: 0, failing: 0 };
  /** Tries of each owner by share, as `<share> <owner>`. */
  readonly #inFlightOf = new Map<string, number>();

  constructor(options: { strangersAtOnce: number; failingAtOnce: number; perHost: number; pauseMs: number }) {
    const { failingAtOnce, pauseMs, perHost, strangersAtOnce } = options;
    this.#limits = { proven: Number.POSITIVE_INFINITY, stranger: strangersAtOnce, failing: failingAtOnce };
    this.#perHost = perHost;
    this.#pauseMs = pauseMs;
  }

  /** Resolves to a place for a try once the host has one, or to the ms after which to ask again. */
  async enter(receiver: Receiver): Promise<Place | { waitMs: number }> {
    const { owner } = receiver;
    const host = keyOf(receiver);
    for (;;) {
      const now = performance.now();
      const state = this.#hosts.get(host) ?? newHost();
      if (state.pausedUntil > now) return { waitMs: state.pausedUntil - now };
      const probing = state.failures >= failuresToPause;
      if (probing && state.inFlight > 0) return { waitMs: 1000 };
      const share = state.proven ? "proven" : state.failures > 0 ? "failing" : "stranger";
      const own = this.#inFlightOf.get(`${share} ${owner}`) ?? 0;
      const limit = this.#limits[share];
      if (this.#inFlight[share] >= limit || own >= Math.ceil(limit * mostOfOneOwner))
        return { waitMs: this.#turnMs(now) };
      if (state.inFlight < this.#placesOf(state)) {
        this.#count(share, owner, 1);
        state.inFlight += 1;
        // Moved to the end, so that the first entry is the host called longest ago.
        this.#hosts.delete(host);
        this.#hosts.set(host, state);
        this.#forgetOldest();
        return { receiver, share };
      }
      if (state.waiting.length >= waitingPerHost) return { waitMs: 100 };
      await new Promise<void>((resolve) => state.waiting.push(resolve));
    }
  }

  /**
   * Gives the place back. `answerMs`: the host's time to answer; null without an answer, or for a 5xx; `unused` where
   * the host was not called, which says nothing about it.
   */
  leave({ receiver, share }: Place, answerMs: number | null | "unused"): void {
    const now = performance.now();
    this.#count(share, receiver.owner, -1);
    const state = this.#hosts.get(keyOf(receiver)) as HostState;
    state.inFlight -= 1;
    if (answerMs === null) {
      state.failures += 1;
    } else if (answerMs !== "unused") {
      state.failures = 0;
      state.proven = true;
      state.answerMs = Math.min(answerMs, (state.answerMs ?? answerMs) * answerMsGrowth + 1);
    }
    if (answerMs !== "unused" && state.failures >= failuresToPause) {
      state.proven = false;
      const pauseMs = Math.min(longestPauseMs, this.#pauseMs * 2 ** Math.min(10, state.failures - failuresToPause));
      state.pausedUntil = now + pauseMs * (0.75 + Math.random() / 2);
      for (const wake of state.waiting.splice(0)) wake();
    } else {
      const free = this.#placesOf(state) - state.inFlight;
      for (const wake of state.waiting.splice(0, free)) wake();
    }
  }

  #count(share: Place["share"], owner: string, change: 1 | -1): void {
    this.#inFlight[share] += change;
    const key = `${share} ${owner}`;
    const own = (this.#inFlightOf.get(key) ?? 0) + change;
    if (own === 0) this.#inFlightOf.delete(key);
    else this.#inFlightOf.set(key, own);
  }

  /** Delay until the next request for a place, spread over the number of tries that come back, in ms. */
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

/** No owner's name has a space. */
const keyOf = ({ host, owner }: Receiver): string => `${owner} ${host}`;

function newHost(): HostState {
  return { failures: 0, pausedUntil: 0, inFlight: 0, answerMs: null, waiting: [], proven: false };
}
