import { setTimeout as delay } from "node:timers/promises";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { nodeOfKey } from "@millrace/shared/redis/node-of-key.js";
import type { Redis } from "ioredis";

/** A marker taken out of a queue: there is work, now or at `score` (ms since the epoch). */
export interface Marker {
  member: string;
  score: number;
}

/** How far a wait may exceed its time before its connection counts as lost. */
const patienceMs = 1000;
const pauseAfterFaultMs = 200;

/**
 * Waits for the marker of one queue on a connection of its own, in a cluster to the key's node. A connection that
 * breaks or falls silent is closed, and the next wait opens another. BullMQ's own, a cluster client for each queue,
 * does not always come back after an outage of a node.
 */
export class MarkerWaiter {
  readonly #redis: RedisClient;
  readonly #marker: string;
  readonly #name: string;
  #connection: Promise<Redis> | null = null;
  #interrupt: () => void = () => undefined;
  #closed = false;

  /** `name`: the connection's name in Redis. */
  constructor(redis: RedisClient, marker: string, name: string) {
    this.#redis = redis;
    this.#marker = marker;
    this.#name = name;
  }

  /** Resolves to the marker, or to null after that many seconds, on an interrupt or when the connection breaks. */
  async wait(seconds: number): Promise<Marker | null> {
    if (this.#closed) return null;
    let timer: NodeJS.Timeout | undefined;
    const ended = new Promise<"ended">((resolve) => {
      this.#interrupt = () => resolve("ended");
      timer = setTimeout(this.#interrupt, seconds * 1000 + patienceMs);
    });
    try {
      const popped = await Promise.race([this.#pop(seconds), ended]);
      if (popped === "ended") this.#drop();
      return popped === "ended" || popped === null ? null : { member: popped[1], score: Number(popped[2]) };
    } catch {
      // The reason is logged by the worker's main connection.
      this.#drop();
      await Promise.race([delay(pauseAfterFaultMs), ended]);
      return null;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the current wait. */
  interrupt(): void {
    this.#interrupt();
  }

  /** Ends the current wait, and every later one at once. */
  close(): void {
    this.#closed = true;
    this.interrupt();
    this.#drop();
  }

  async #pop(seconds: number): Promise<[key: string, member: string, score: string] | null> {
    this.#connection ??= this.#open();
    return (await this.#connection).bzpopmin(this.#marker, seconds);
  }

  async #open(): Promise<Redis> {
    const node = await nodeOfKey(this.#redis, this.#marker);
    if (node === null) throw new Error("The marker's node is not known.");
    // A broken connection is replaced, so it need neither reconnect nor repeat commands.
    const connection = node.duplicate({ connectionName: this.#name, retryStrategy: () => null, lazyConnect: false });
    connection.on("error", () => undefined);
    return connection;
  }

  #drop(): void {
    this.#connection?.then((connection) => connection.disconnect()).catch(() => undefined);
    this.#connection = null;
  }
}
