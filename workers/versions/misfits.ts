import { noteUnjoined, readUnjoined, reasonUnjoined } from "@millrace/shared/models/unjoined.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import type { RunQueue } from "../runs/work.js";
import type { LoadedVersion } from "./load-versions.js";

interface MisfitsOptions {
  keyPrefix: string;
  held(): LoadedVersion[];
  redis: RedisClient;
  metrics: WorkerMetrics;
  log: Logger;
}

/**
 * Versions with a run whose outputs were not one per row. Their inputs share no run, on any worker, until they load
 * anew.
 */
export class Misfits {
  readonly #options: MisfitsOptions;
  /** Misfits that Redis does not know yet, with the reason. */
  readonly #unpublished = new Map<LoadedVersion, string>();

  constructor(options: MisfitsOptions) {
    this.#options = options;
  }

  /**
   * Notes a misfit for every worker, so that inputs of the version share no run until it is loaded anew. Never rejects:
   * each worker also checks its own runs.
   */
  async note(runQueue: RunQueue, reason: string): Promise<void> {
    const { log, metrics } = this.#options;
    const { model, version } = runQueue;
    const loaded = this.#options.held().find((held) => held.runQueue === runQueue);
    log.error("a version's outputs are not one per row, so its inputs share no run now", { model, version, reason });
    metrics.misfits.inc({ model, version });
    if (loaded === undefined) return;
    this.showJoining(loaded);
    this.#unpublished.set(loaded, reason);
    await this.#publish().catch((error: Error) => log.warn("misfit not written, trying again", { error }));
  }

  async #publish(): Promise<void> {
    const { keyPrefix, redis } = this.#options;
    for (const [{ announcement, model, version }, reason] of this.#unpublished) {
      const { fingerprint = "" } = announcement;
      await noteUnjoined(redis, modelKeys(keyPrefix, model), { version, fingerprint, reason });
    }
    this.#unpublished.clear();
  }

  /** Writes and reads misfits. Never rejects; the next scan repeats it. */
  async exchange(): Promise<void> {
    await this.#read().catch((error: Error) => this.#options.log.warn("misfits of other workers not read", { error }));
  }

  /** Stops the sharing of runs for versions that another worker has noted. */
  async #read(): Promise<void> {
    const { keyPrefix, log, redis } = this.#options;
    await this.#publish();
    const models = new Set(
      this.#options
        .held()
        .filter(({ runQueue }) => runQueue.joinable)
        .map(({ model }) => model),
    );
    for (const model of models) {
      const unjoined = await readUnjoined(redis, modelKeys(keyPrefix, model));
      for (const loaded of this.#options.held()) {
        const { announcement, runQueue, version } = loaded;
        const reason = loaded.model === model ? reasonUnjoined(unjoined, announcement) : null;
        if (reason === null || !runQueue.joinable) continue;
        runQueue.joinable = false;
        this.showJoining(loaded);
        log.warn("inputs of a version share no run any more: another worker saw a misfit", { model, version, reason });
      }
    }
  }

  /** Sets the metrics of joining for a version. */
  showJoining({ runQueue, model, version }: LoadedVersion): void {
    const { joining, misfits } = this.#options.metrics;
    joining.set({ model, version }, runQueue.joinable ? 1 : 0);
    // From 0, because an alert cannot see the rise of a counter that begins with 1.
    misfits.inc({ model, version }, 0);
  }
}
