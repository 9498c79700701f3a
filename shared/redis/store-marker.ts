import { randomBytes } from "node:crypto";
import { Cluster } from "ioredis";
import type { Logger } from "../service/log.js";
import type { RedisClient } from "./connect-redis.js";
import { acceptedMarkerKey, storeMarkerKey } from "./keys.js";
import { addressOfKey, slotOfKey } from "./node-of-key.js";

/** Interval of the checks, in ms; a swap is noticed within two of them. */
const checkEveryMs = 500;

/** Interval at which every marker is checked, not only one of each master, in ms. */
const checkAllEveryMs = 10_000;

/** Pause between log lines about the same swap, in ms. */
const logEveryMs = 30_000;

/** How long an acceptance can be taken notice of, in ms. */
const acceptedForMs = 60_000;

/** Begins a marker that a process wrote in place of one that it missed; no process takes it for right. */
const unaccepted = "unaccepted:";

const allSlots = 16_384;
/** Markers of a cluster; a master with so many-th part of the slots in a row has at least one. */
const clusterMarkers = 64;

/** The keys of all markers. In a cluster they are spread evenly over the hash slots. */
function markerKeys(redis: RedisClient, keyPrefix: string): string[] {
  if (!(redis instanceof Cluster)) return [storeMarkerKey(keyPrefix)];
  const keys = new Map<number, string>();
  for (let i = 0; keys.size < clusterMarkers; i++) {
    const key = storeMarkerKey(keyPrefix, `-${i}`);
    const part = Math.floor((slotOfKey(key) * clusterMarkers) / allSlots);
    if (!keys.has(part)) keys.set(part, key);
  }
  return [...keys.values()];
}

const newMarker = (): string => randomBytes(12).toString("hex");

type Finding = "emptied" | "another";

const complaints: Record<Finding, string> = {
  emptied: "the store was emptied: its marker is gone, and with it accepted work",
  another: "this is not the store that this process knew: it has another marker",
};
const remedy = "restore the store, or run `millrace store accept` to go on with this one";

/**
 * Tells whether the store is still the one that this process has known since its start, by a random marker in it. An
 * empty store gets a marker from the first process that starts on it. Its rules:
 * - A process remembers the marker that it found at its start. If it is gone, or another, the store was swapped.
 * - A process that misses a marker writes one that counts as unaccepted, so that processes that start later, which
 *   remember nothing, do not take the emptied store for a new one.
 * - A swap ends with the return of the remembered marker, or with `acceptStore`.
 * - A store that does not answer is no other store. A failover and a restart keep the marker.
 *
 * A cluster has a marker on each of its masters: several keys spread over all hash slots, with a marker each.
 */
export class StoreMarker {
  readonly #redis: RedisClient;
  readonly #keys: readonly string[];
  readonly #log: Logger;
  /** The remembered markers, by key. */
  readonly #known = new Map<string, string>();
  readonly #findings = new Map<string, Finding>();
  readonly #onAccepted: (() => void)[] = [];
  #timer: NodeJS.Timeout | null = null;
  #allCheckedAt = Number.NEGATIVE_INFINITY;
  #loggedAt = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(redis: RedisClient, keyPrefix: string, log: Logger) {
    this.#redis = redis;
    this.#keys = markerKeys(redis, keyPrefix);
    this.#log = log;
  }

  /** Remembers the markers, or writes the first ones; then checks them twice a second until closed. */
  async start(): Promise<void> {
    await this.#check();
    this.#schedule();
  }

  /** The fault, in words for an operator; null while the store is the known one. */
  get complaint(): string | null {
    const [finding] = this.#findings.values();
    return finding === undefined ? null : `${complaints[finding]}; ${remedy}`;
  }

  /** Calls `act` after each acceptance of a swapped store. */
  onAccepted(act: () => void): void {
    this.#onAccepted.push(act);
  }

  /** Ends the checks. May be called twice. */
  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #schedule(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.#check().finally(() => this.#schedule()), checkEveryMs);
  }

  async #check(): Promise<void> {
    const before = this.complaint;
    const accepted = (await Promise.all(this.#keysToCheck().map((key) => this.#checkKey(key)))).some(Boolean);
    const { complaint } = this;
    if (complaint !== null && (before === null || performance.now() - this.#loggedAt >= logEveryMs)) {
      this.#loggedAt = performance.now();
      this.#log.error("store swapped", { reason: complaint });
    }
    if (complaint !== null || before === null) return;
    this.#log.warn(accepted ? "swapped store accepted" : "the known store is back");
    if (accepted) for (const act of this.#onAccepted) act();
  }

  /** One key of each master; all keys now and then, while something is wrong, and until all are known. */
  #keysToCheck(): readonly string[] {
    const now = performance.now();
    const all = this.#findings.size > 0 || this.#known.size < this.#keys.length;
    if (all || now - this.#allCheckedAt >= checkAllEveryMs) {
      this.#allCheckedAt = now;
      return this.#keys;
    }
    const first = new Map<string, string>();
    for (const key of this.#keys) {
      const address = addressOfKey(this.#redis, key);
      if (!first.has(address)) first.set(address, key);
    }
    return [...first.values()];
  }

  /** Checks one marker; resolves to whether another one was accepted in its place. */
  async #checkKey(key: string): Promise<boolean> {
    try {
      const [marker, accepted] = await this.#redis.mget(key, acceptedMarkerKey(key));
      const known = this.#known.get(key);
      if (marker == null) await this.#replaceMissing(key, known);
      else if (marker === known) this.#findings.delete(key);
      else if (marker === accepted || (known === undefined && !marker.startsWith(unaccepted))) {
        this.#known.set(key, marker);
        return this.#findings.delete(key);
      } else if (this.#findings.get(key) === undefined) {
        this.#findings.set(key, marker.startsWith(unaccepted) ? "emptied" : "another");
      }
    } catch {
      // The store is away, or takes no writes; the next check may tell more.
    }
    return false;
  }

  async #replaceMissing(key: string, known: string | undefined): Promise<void> {
    if (known === undefined && !this.#findings.has(key)) {
      // Read again by the next check where another process was faster.
      const made = newMarker();
      if ((await this.#redis.set(key, made, "NX")) === "OK") this.#known.set(key, made);
      else await this.#checkKey(key);
      return;
    }
    this.#findings.set(key, "emptied");
    await this.#redis.set(key, `${unaccepted}${newMarker()}`, "NX");
  }
}

/**
 * Has all APIs and workers go on with the store as it is now: an operator's word after a swap. They notice within a
 * second. Without a swap it changes nothing. Rejects where a part of the store does not answer.
 */
export async function acceptStore(redis: RedisClient, keyPrefix: string): Promise<void> {
  for (const key of markerKeys(redis, keyPrefix)) {
    const before = await redis.get(key);
    const marker = before === null || before.startsWith(unaccepted) ? newMarker() : before;
    // First the acceptance, so that no process sees the marker without it.
    await redis.set(acceptedMarkerKey(key), marker, "PX", acceptedForMs);
    if (marker !== before) await redis.set(key, marker);
  }
}

/** Number of jobs that a worker may take for all the store says: none from a swapped one. */
export const roomIn = ({ complaint }: Pick<StoreMarker, "complaint">): number =>
  complaint === null ? Number.POSITIVE_INFINITY : 0;
