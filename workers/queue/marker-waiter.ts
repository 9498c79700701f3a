import { setTimeout as delay } from "node:timers/promises";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { nodeOfKey } from "@millrace/shared/redis/node-of-key.js";
import type { Redis } from "ioredis";

/** A marker that was taken out of a queue: there is something to do, now or at `score` (ms since the epoch). */
export interface Marker {
  member: string;
  score: number;
}

/** How much longer than it was told to a wait may take before its connection counts as lost. */
const patienceMs = 1000;
const pauseAfterFaultMs = 200;

/**
 * Waits for the marker of one queue on a connection of its own, in a cluster to the node that has it. A connection that breaks or
 * falls silent is thrown away, and the next wait opens another. BullMQ's own, a whole cluster's for each queue, was
 * seen not to come back after a node was away.
 */
export class MarkerWaiter {
  readonly #redis: RedisClient;
  readonly #marker: string;
  readonly #name: string;
  #connection: Promise<Redis> | null = null;
  #interrupt: () => void = () => undefined;
  #closed = false;

  /** `name`: what the connection is called in Redis. */
  constructor(redis: RedisClient, marker: string, name: string) {
    this.#redis = redis;
    this.#marker = marker;
    this.#name = name;
  }

  /** Resolves to the marker, or to null after that many seconds, when it is interrupted or when the connection broke. */
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
      // Why is said by the connection that the worker does all the rest on.
      this.#drop();
      await Promise.race([delay(pauseAfterFaultMs), ended]);
      return null;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the wait that is on its way. */
  interrupt(): void {
    this.#interrupt();
  }

  /** Ends the wait that is on its way, and every later one at once. */
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
    if (node === null) throw new Error("the node that has the marker is not known");
    // It is thrown away when it breaks, and so need neither come back nor repeat anything.
    const connection = node.duplicate({ connectionName: this.#name, retryStrategy: () => null, lazyConnect: false });
    connection.on("error", () => undefined);
    return connection;
  }

  #drop(): void {
    this.#connection?.then((connection) => connection.disconnect()).catch(() => undefined);
    this.#connection = null;
  }
}
