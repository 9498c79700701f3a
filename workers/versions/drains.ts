import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { retireVersion } from "@millrace/shared/scripts/models/announce.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { isBacklogYounger } from "../queue/backlog.js";
import type { Dispatcher } from "../runs/dispatcher.js";
import type { SlotPool } from "../runs/slot-pool.js";
import type { LoadedVersion } from "./load-versions.js";
import type { Serving } from "./serve-model.js";

/** Jobs that still wait so long after their version began to drain end as failed. */
const longestDrainMs = 600_000;

interface DrainsOptions {
  redis: RedisClient;
  keyPrefix: string;
  workerId: string;
  /** When all APIs know of a version that leaves, in ms. */
  noticedMs: number;
  pool: SlotPool;
  dispatcher: Dispatcher;
  serving: Serving;
  clock: Clock;
  log: Logger;
  /** Called when a version has no jobs left. */
  onDrained(loaded: LoadedVersion): void;
}

/**
 * Versions on their way out. A removed one first stops its heartbeats, so that APIs choose others; then it is retired,
 * so that requests that name it get `version_not_found`. Its jobs are run all the while, until none can be left. A
 * replaced one is unloaded as soon as the dispatcher holds nothing of it.
 */
export class Drains {
  readonly #options: DrainsOptions;
  /** Draining versions, with start and retirement time. */
  readonly #draining = new Map<LoadedVersion, { begunAt: number; retiredAt: number | null }>();
  /** Versions whose place the same version with another manifest has taken. */
  readonly #replaced = new Set<LoadedVersion>();

  constructor(options: DrainsOptions) {
    this.#options = options;
  }

  has(loaded: LoadedVersion): boolean {
    return this.#draining.has(loaded);
  }

  /** Versions that leave the slots once their last work has left the dispatcher. */
  replaced(): Iterable<LoadedVersion> {
    return this.#replaced;
  }

  async begin(loaded: LoadedVersion): Promise<void> {
    if (this.#draining.has(loaded)) return;
    this.#options.log.info("version leaves", { model: loaded.model, version: loaded.version });
    this.#draining.set(loaded, { begunAt: this.#options.clock.now(), retiredAt: null });
    await this.#options.serving.leave(loaded);
  }

  /** Serves a draining version again, unless it is retired; whether it does. */
  cancel(loaded: LoadedVersion): boolean {
    if (this.#draining.get(loaded)?.retiredAt !== null) return false;
    this.#draining.delete(loaded);
    this.#options.serving.add(loaded);
    return true;
  }

  /** Another manifest of the same version has taken its place. */
  replace(loaded: LoadedVersion): void {
    this.#draining.delete(loaded);
    this.#replaced.add(loaded);
  }

  /** Drops a version that no slot holds any more. */
  forget(loaded: LoadedVersion): void {
    this.#draining.delete(loaded);
  }

  /** Advances drains: a version is first retired, then unloaded. */
  async advance(): Promise<void> {
    const { clock, dispatcher, keyPrefix, log, noticedMs, pool, redis, serving } = this.#options;
    for (const [loaded, drain] of this.#draining) {
      const { model, version } = loaded;
      const now = clock.now();
      const keys = modelKeys(keyPrefix, model);
      if (drain.retiredAt === null) {
        if (now - drain.begunAt < noticedMs) continue;
        await this.retire(loaded);
        drain.retiredAt = clock.now();
        continue;
      }
      const noticedAt = drain.retiredAt + noticedMs;
      if (now < noticedAt || dispatcher.holds(loaded.request.key)) continue;
      if (now - drain.begunAt < longestDrainMs && !(await isBacklogYounger(redis, keys, noticedAt))) continue;
      this.#draining.delete(loaded);
      this.#options.onDrained(loaded);
      await serving.remove(loaded);
      // A job that was taken meanwhile may wait for its slot.
      if (dispatcher.holds(loaded.request.key)) this.#replaced.add(loaded);
      else pool.unload(loaded.request.key);
      log.info("version unloaded", { model, version });
    }
    for (const loaded of this.#replaced) {
      if (dispatcher.holds(loaded.request.key)) continue;
      this.#replaced.delete(loaded);
      pool.unload(loaded.request.key);
    }
  }

  /** Retires a version: from now on it is unknown, unless another worker serves it. */
  async retire({ model, version }: LoadedVersion): Promise<void> {
    const { clock, keyPrefix, redis, workerId } = this.#options;
    const keys = modelKeys(keyPrefix, model);
    await retireVersion(redis, keyPrefix, keys, { model, version, worker: workerId, nowMs: clock.now() });
  }
}
