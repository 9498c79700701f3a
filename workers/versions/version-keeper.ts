import type { WorkerConfig } from "@millrace/shared/config/worker-config.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { retireVersion } from "@millrace/shared/scripts/models/announce.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { isBacklogYounger } from "../queue/backlog.js";
import type { Dispatcher } from "../runs/dispatcher.js";
import type { SlotPool } from "../runs/slot-pool.js";
import type { RunQueue } from "../runs/work.js";
import { type LoadedVersion, type Loading, loadVersions } from "./load-versions.js";
import { Misfits } from "./misfits.js";
import { type FoundVersion, listVersions, readVersion, type VersionFolder } from "./model-repository.js";
import { nameOf, Refusals } from "./refusals.js";
import type { Serving } from "./serve-model.js";

/** The state of one version on this worker. */
export interface VersionState {
  model: string;
  version: string | null;
  state: "ready" | "draining" | "refused";
  digest: string | null;
  reason: string | null;
}

/** Jobs that still wait so long after their version began to drain end as failed. */
const longestDrainMs = 600_000;
const scanEveryMs = 1000;

/**
 * Keeps the served versions in step with the model repository: scans it every second and on an admin's order, loads new
 * versions beside running ones, and unloads removed ones once they are drained. Its rules:
 * - A folder is loaded when two scans in a row have seen the same files, so that no half-copied version is.
 * - The files of a served version never change; other bytes are another version. A changed `model.json` is loaded
 *   beside the old one and takes its place.
 * - A removed version first stops its heartbeats, so that APIs choose others; then it is retired, so that requests that
 *   name it get `version_not_found`. Its jobs are run all the while, until none can be left.
 */
export class VersionKeeper {
  readonly #options: KeeperOptions;
  readonly #held = new Map<string, LoadedVersion>();
  /** Draining versions, with start and retirement time. */
  readonly #draining = new Map<LoadedVersion, { begunAt: number; retiredAt: number | null }>();
  /** Versions whose place the same version with another manifest has taken. */
  readonly #replaced = new Set<LoadedVersion>();
  readonly #misfits: Misfits;
  readonly #refusals: Refusals;
  #seen = new Map<string, string>();
  #lastKey = 0;
  #timer: NodeJS.Timeout | null = null;
  #scanning: Promise<void> = Promise.resolve();
  /** Scans that run or wait. */
  #scans = 0;
  #closed = false;

  constructor(options: KeeperOptions) {
    const { config, log, metrics, redis } = options;
    this.#options = options;
    this.#misfits = new Misfits({ keyPrefix: config.keyPrefix, held: () => this.held(), redis, metrics, log });
    this.#refusals = new Refusals({
      ...{ isHeld: (name) => this.#held.has(name), metrics, log },
      versionRetryMs: config.timing.versionRetryMs,
    });
  }

  /** Notes a misfit for every worker; see `Misfits.note`. */
  noteMisfit(runQueue: RunQueue, reason: string): Promise<void> {
    return this.#misfits.note(runQueue, reason);
  }

  /** Scans at once, and from then on every second until closed. Rejects where the repository cannot be read. */
  async start(): Promise<void> {
    await this.scan(true);
    this.#timer = setInterval(() => {
      if (this.#scans === 0)
        this.scan(false).catch((error) => this.#options.log.warn("the models folder cannot be read", { error }));
    }, scanEveryMs);
  }

  /** Scans the repository; `atOnce`: also loads files that the last scan did not see. One scan at a time. */
  scan(atOnce: boolean): Promise<void> {
    this.#scans += 1;
    const scan = this.#scanning
      .then(() => (this.#closed ? undefined : this.#scan(atOnce)))
      .finally(() => {
        this.#scans -= 1;
      });
    this.#scanning = scan.catch(() => undefined);
    return scan;
  }

  /** Every version that this worker serves, drains or refuses. */
  states(): VersionState[] {
    const held = [...this.#held.values()].map(
      (loaded): VersionState => ({
        ...{ model: loaded.model, version: loaded.version, digest: loaded.digest, reason: null },
        state: this.#draining.has(loaded) ? "draining" : "ready",
      }),
    );
    const refused = this.#refusals
      .all()
      .map(({ model, reason, version }): VersionState => ({ model, version, state: "refused", digest: null, reason }));
    return [...held, ...refused];
  }

  /** Every version in the slots. */
  held(): LoadedVersion[] {
    return [...this.#held.values()];
  }

  /** Stops scanning. Resolves when the current scan is over, which adds no version any more. May be called twice. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    await this.#scanning;
  }

  async #scan(atOnce: boolean): Promise<void> {
    const { config, dispatcher, pool, redis } = this.#options;
    const { bad, folders } = await listVersions(config.modelsDir, config.modelGlobs);
    const unloaded = await this.#unloaded(new Set(folders.map(({ model }) => model)));
    const inService = folders.filter((folder) => !unloaded.has(nameOf(folder)));
    const wanted = new Map(inService.map((folder) => [nameOf(folder), folder]));
    // A slot may be unable to load a version again; a version that no slot holds is not served.
    for (const loaded of this.#held.values()) {
      if (pool.holds(loaded.request.key)) continue;
      this.#options.log.error("no slot holds a version any more", { model: loaded.model, version: loaded.version });
      this.#forget(loaded);
      if (!wanted.has(nameOf(loaded))) await this.#retire(loaded);
      await this.#options.serving.remove(loaded);
    }
    const isBad = new Set(bad.map(nameOf));
    this.#refusals.update(bad, isBad, wanted, unloaded);
    await this.#load([...wanted.values()].filter((folder) => this.#isDue(folder, atOnce)));
    this.#seen = new Map(folders.map((folder) => [nameOf(folder), folder.stamp]));
    for (const [name, loaded] of this.#held) {
      const folder = wanted.get(name);
      // A folder that has become bad is not gone; its loaded version is still good.
      if (folder === undefined && !(isBad.has(name) && !unloaded.has(name))) await this.#beginDrain(loaded);
      // Back with the same files, and not retired. Otherwise the folder is loaded once the old version is gone.
      else if (folder?.stamp === loaded.stamp && this.#draining.get(loaded)?.retiredAt === null) {
        this.#draining.delete(loaded);
        this.#options.serving.add(loaded);
      }
    }
    await this.#endDrains(redis);
    for (const loaded of this.#replaced) {
      if (dispatcher.holds(loaded.request.key)) continue;
      this.#replaced.delete(loaded);
      pool.unload(loaded.request.key);
    }
    // A job whose version went between its take and its wait for a slot goes back to the queue.
    dispatcher.releaseOthers(new Set([...this.#held.values(), ...this.#replaced].map(({ request }) => request.key)));
    await this.#misfits.exchange();
  }

  async #unloaded(models: ReadonlySet<string>): Promise<Set<string>> {
    const { config, redis } = this.#options;
    const all = new Set([...models, ...[...this.#held.values()].map(({ model }) => model)]);
    const sets = await Promise.all(
      [...all].map(async (model) => {
        const versions = await redis.smembers(modelKeys(config.keyPrefix, model).unloaded);
        return versions.map((version) => `${model}/${version}`);
      }),
    );
    return new Set(sets.flat());
  }

  /** Whether a folder must be read and loaded now. */
  #isDue(folder: VersionFolder, atOnce: boolean): boolean {
    const name = nameOf(folder);
    if (this.#held.get(name)?.stamp === folder.stamp) return false;
    if (!atOnce && this.#refusals.holdsBack(name, folder.stamp)) return false;
    return atOnce || this.#seen.get(name) === folder.stamp;
  }

  async #load(folders: readonly VersionFolder[]): Promise<void> {
    const { log, serving } = this.#options;
    const found: FoundVersion[] = [];
    for (const folder of folders) {
      const read = await readVersion(folder, this.#options.config.modelPublicKeys).catch((fault: Error) => fault);
      if (read instanceof Error) {
        this.#refusals.refuse(folder, read.message, folder.stamp);
        continue;
      }
      const held = this.#held.get(nameOf(folder));
      if (held !== undefined && held.digest !== read.digest) {
        const digests = `${held.digest}, now ${read.digest}`;
        const reason = `its files have changed while it is served (${digests}): make it a new version`;
        this.#refusals.refuse(folder, reason, folder.stamp);
      } else if (held !== undefined && sameManifest(held, read)) held.stamp = folder.stamp;
      else found.push(read);
    }
    const { config, pool, redis, workerId } = this.#options;
    const { keyPrefix } = config;
    const newKey = () => ++this.#lastKey;
    const results: Loading[] = await loadVersions({ found, pool, redis, keyPrefix, workerId, newKey, log });
    if (this.#closed) return;
    for (const result of results) {
      if ("reason" in result) {
        this.#refusals.refuse(result.found, result.reason, result.found.stamp, result.passing);
        continue;
      }
      const { loaded } = result;
      const name = nameOf(loaded);
      const before = this.#held.get(name);
      this.#held.set(name, loaded);
      this.#refusals.delete(name);
      this.#misfits.showJoining(loaded);
      serving.add(loaded);
      if (before !== undefined) {
        this.#draining.delete(before);
        this.#replaced.add(before);
      }
      log.info("version loaded", { model: loaded.model, version: loaded.version, digest: loaded.digest });
    }
  }

  async #beginDrain(loaded: LoadedVersion): Promise<void> {
    if (this.#draining.has(loaded)) return;
    this.#options.log.info("version leaves", { model: loaded.model, version: loaded.version });
    this.#draining.set(loaded, { begunAt: Date.now(), retiredAt: null });
    await this.#options.serving.leave(loaded);
  }

  /** Advances drains: the version is first retired, then unloaded. */
  async #endDrains(redis: RedisClient): Promise<void> {
    const { config, dispatcher, log, pool, serving } = this.#options;
    const { versionNoticedMs: noticedMs } = config.timing;
    for (const [loaded, drain] of this.#draining) {
      const { model, version } = loaded;
      const now = Date.now();
      const keys = modelKeys(config.keyPrefix, model);
      if (drain.retiredAt === null) {
        if (now - drain.begunAt < noticedMs) continue;
        await this.#retire(loaded);
        drain.retiredAt = Date.now();
        continue;
      }
      const noticedAt = drain.retiredAt + noticedMs;
      if (now < noticedAt || dispatcher.holds(loaded.request.key)) continue;
      if (now - drain.begunAt < longestDrainMs && !(await isBacklogYounger(redis, keys, noticedAt))) continue;
      this.#forget(loaded);
      await serving.remove(loaded);
      // A job that was taken meanwhile may wait for its slot.
      if (dispatcher.holds(loaded.request.key)) this.#replaced.add(loaded);
      else pool.unload(loaded.request.key);
      log.info("version unloaded", { model, version });
    }
  }

  /** Retires a version: from now on it is unknown, unless another worker serves it. */
  async #retire({ model, version }: LoadedVersion): Promise<void> {
    const { config, redis, workerId } = this.#options;
    const keys = modelKeys(config.keyPrefix, model);
    await retireVersion(redis, config.keyPrefix, keys, { model, version, worker: workerId });
  }

  #forget(loaded: LoadedVersion): void {
    this.#draining.delete(loaded);
    this.#held.delete(nameOf(loaded));
    this.#refusals.delete(nameOf(loaded));
  }
}

export interface KeeperOptions {
  config: WorkerConfig;
  workerId: string;
  redis: RedisClient;
  pool: SlotPool;
  dispatcher: Dispatcher;
  serving: Serving;
  metrics: WorkerMetrics;
  log: Logger;
}

const sameManifest = ({ announcement }: LoadedVersion, { manifest }: FoundVersion): boolean =>
  JSON.stringify(announcement.manifest) === JSON.stringify(manifest);
