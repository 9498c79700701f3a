import type { Announcement } from "@millrace/shared/models/announcement.js";
import { cacheTtlSeconds } from "@millrace/shared/models/manifest.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { digestOf } from "@millrace/shared/redis/digest.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { announceVersion, digestElsewhere } from "@millrace/shared/scripts/models/announce.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { ServedVersion } from "../jobs/taken-prediction.js";
import type { LoadReply, LoadRequest } from "../runs/load-request.js";
import type { SlotPool } from "../runs/slot-pool.js";
import type { FoundVersion } from "./model-repository.js";
import { nameOf, type Passing } from "./refusals.js";

/** A version in the slots, announced to the APIs. */
export interface LoadedVersion extends ServedVersion {
  announcement: Announcement;
  /** Identifies the loaded files. */
  request: LoadRequest;
  stamp: string;
}

/** The outcome of loading one version. */
export type Loading =
  | { found: FoundVersion; loaded: LoadedVersion }
  | { found: FoundVersion; reason: string; passing: Passing | null };

interface CurrentLoad {
  found: FoundVersion;
  key: number;
  /** Resolves when its outcome has been told, or it was dropped. */
  done: Promise<void>;
  /** Resolves when it is done, or loads in a process of its own, so that nothing waits for it. */
  doneOrAside: Promise<void>;
}

interface VersionLoaderOptions {
  pool: SlotPool;
  redis: RedisClient;
  keyPrefix: string;
  workerId: string;
  clock: Clock;
  log: Logger;
  /** Told of each outcome as soon as it is known; a loaded version is announced by then. */
  onLoaded(result: Loading): void;
}

/** Loads versions into the slots and announces each as soon as a slot serves it, whatever the others do. */
export class VersionLoader {
  readonly #options: VersionLoaderOptions;
  readonly #current = new Map<string, CurrentLoad>();
  #lastKey = 0;
  #closed = false;

  constructor(options: VersionLoaderOptions) {
    this.#options = options;
  }

  /** Whether these files of a version are being loaded. */
  isLoading(name: string, stamp: string): boolean {
    return this.#current.get(name)?.found.stamp === stamp;
  }

  /** The versions that are being loaded, of one model or of all. */
  loading(model?: string): CurrentLoad[] {
    return [...this.#current.values()].filter(({ found }) => model === undefined || found.model === model);
  }

  /** Begins to load versions, and returns when Redis has shown which other workers serve with other files. */
  async begin(all: readonly FoundVersion[]): Promise<void> {
    const { clock, keyPrefix, pool, redis, workerId } = this.#options;
    const requests: LoadRequest[] = [];
    const listeners = new Map<number, { decided(reply: LoadReply): void; setAside(): void }>();
    for (const found of highestFirst(all)) {
      const { digest, file, folder, manifest, model, version } = found;
      const servedDigest = await digestElsewhere(redis, modelKeys(keyPrefix, model), version, workerId, clock.now());
      if (this.#closed) return;
      if (servedDigest !== null && servedDigest !== digest) {
        this.#options.onLoaded(conflicting(found, servedDigest));
        continue;
      }
      const request = { key: ++this.#lastKey, model, version, folder, file, digest, manifest };
      let decided: (reply: LoadReply) => void = () => undefined;
      let setAside: () => void = () => undefined;
      const reply = new Promise<LoadReply>((resolve) => {
        decided = resolve;
      });
      const isAside = new Promise<void>((resolve) => {
        setAside = resolve;
      });
      listeners.set(request.key, { decided, setAside });
      const done = this.#finish(found, request, reply);
      const doneOrAside = Promise.race([done, isAside]);
      this.#current.set(nameOf(found), { found, key: request.key, done, doneOrAside });
      requests.push(request);
    }
    if (requests.length === 0) return;
    void pool.load(requests, {
      decided: (reply) => listeners.get(reply.key)?.decided(reply),
      setAside: (key) => listeners.get(key)?.setAside(),
    });
  }

  /** Drops the loads of files that are not wanted any more. */
  dropOthers(wanted: ReadonlyMap<string, { stamp: string }>): void {
    for (const [name, { found, key }] of this.#current) {
      if (wanted.get(name)?.stamp === found.stamp) continue;
      this.#current.delete(name);
      this.#options.pool.unload(key);
    }
  }

  /** From now on nothing is told. Loads end with the pool, and the promise with them. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.loading().map(({ done }) => done));
  }

  async #finish(found: FoundVersion, request: LoadRequest, decided: Promise<LoadReply>): Promise<void> {
    const reply = await decided;
    // Submissions that name no version go to the highest one that is announced, so a lower one is not announced before.
    const higher = this.loading(found.model).filter((load) => Number(load.found.version) > Number(found.version));
    await Promise.all(higher.map(({ doneOrAside }) => doneOrAside));
    const isCurrent = () => !this.#closed && this.#current.get(nameOf(found))?.key === request.key;
    if (!isCurrent()) return;
    const result = await this.#announce(found, request, reply).catch((error: Error): Loading => {
      const reason = `it could not be announced, and is tried again: ${error.message}`;
      return { found, reason, passing: "conflict" };
    });
    if (!("loaded" in result)) this.#options.pool.unload(request.key);
    if (this.#current.get(nameOf(found))?.key === request.key) this.#current.delete(nameOf(found));
    // A version that was dropped meanwhile is announced already; it is drained as one that was served.
    if (!this.#closed) this.#options.onLoaded(result);
  }

  async #announce(found: FoundVersion, request: LoadRequest, reply: LoadReply): Promise<Loading> {
    const { clock, keyPrefix, log, redis, workerId } = this.#options;
    if (!reply.ok) return { found, reason: reply.reason, passing: reply.died ? "death" : null };
    const { digest, manifest, model, stamp, version } = found;
    const { drawsNumbers, inputs, joining, outputs, proofFault } = reply;
    if (proofFault)
      log.error("rows of a model are not kept apart although its graph says so", { model, version, joining });
    const joinable = joining.mode !== "off";
    const fingerprint = digestOf(digest, JSON.stringify(manifest));
    const announcement: Announcement = {
      ...{ v: 1, model, version, digest, manifest, inputs, outputs, joinable, joining },
      ...{ drawsNumbers, fingerprint },
    };
    const keys = modelKeys(keyPrefix, model);
    const answer = await announceVersion(redis, keyPrefix, keys, announcement, workerId, clock.now());
    if (!answer.announced) return conflicting(found, answer.servedDigest);
    const { batching, timeout_ms: timeoutMs } = manifest;
    const { max_batch_rows: maxBatchRows, max_delay_ms: maxDelayMs } = batching;
    const loaded: LoadedVersion = {
      model,
      version,
      digest,
      uniform: manifest.kind !== "tensor",
      attempts: manifest.attempts,
      cacheTtlSeconds: cacheTtlSeconds(manifest, drawsNumbers),
      announcement,
      request,
      stamp,
      runQueue: { model, version, modelKey: request.key, joinable, maxBatchRows, maxDelayMs, timeoutMs },
    };
    return { found, loaded };
  }
}

/** The highest version of every model, then the next one of each, and so on. */
function highestFirst(all: readonly FoundVersion[]): FoundVersion[] {
  const higher = new Map<string, number>();
  const ranked = [...all]
    .sort((a, b) => Number(b.version) - Number(a.version))
    .map((found) => {
      const rank = higher.get(found.model) ?? 0;
      higher.set(found.model, rank + 1);
      return { found, rank };
    });
  return ranked.sort((a, b) => a.rank - b.rank).map(({ found }) => found);
}

const conflicting = (found: FoundVersion, servedDigest: string): Loading => ({
  found,
  reason: `another worker serves other bytes under this version (${servedDigest}, here ${found.digest})`,
  passing: "conflict",
});
