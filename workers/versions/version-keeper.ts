import type { WorkerConfig } from "@millrace/shared/config/worker-config.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import type { Dispatcher } from "../runs/dispatcher.js";
import type { SlotPool } from "../runs/slot-pool.js";
import type { RunQueue } from "../runs/work.js";
import { announceHeld } from "./announce-held.js";
import { Drains } from "./drains.js";
import { type LoadedVersion, type Loading, VersionLoader } from "./load-versions.js";
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

const scanEveryMs = 1000;

/**
 * Keeps the served versions in step with the model repository: scans it every second and on an admin's order, loads new
 * versions beside running ones, and unloads removed ones once they are drained (see `Drains`). Its rules:
 * - A folder is loaded when two scans in a row have seen the same files, so that no half-copied version is.
 * - The files of a served version never change; other bytes are another version. A changed `model.json` is loaded
 *   beside the old one and takes its place.
 * - A version is served as soon as it is loaded, whatever the loads of others do. Scans go on meanwhile.
 */
export class VersionKeeper {
  readonly #options: KeeperOptions;
  readonly #held = new Map<string, LoadedVersion>();
  readonly #drains: Drains;
  readonly #loader: VersionLoader;
  readonly #misfits: Misfits;
  readonly #refusals: Refusals;
  #seen = new Map<string, string>();
  /** Reasons of the bad folders of the last scan. */
  #seenBad = new Map<string, string>();
  #timer: NodeJS.Timeout | null = null;
  #scanning: Promise<void> = Promise.resolve();
  /** Scans that run or wait. */
  #scans = 0;
  #closed = false;

  constructor(options: KeeperOptions) {
    const { clock, config, dispatcher, log, metrics, pool, redis, serving, workerId } = options;
    const { keyPrefix } = config;
    this.#options = options;
    this.#loader = new VersionLoader({
      ...{ pool, redis, keyPrefix, workerId, clock, log },
      onLoaded: (result) => this.#take(result),
    });
    this.#drains = new Drains({
      ...{ redis, keyPrefix, workerId, noticedMs: config.timing.versionNoticedMs },
      ...{ pool, dispatcher, serving, clock, log },
      onDrained: (loaded) => this.#forget(loaded),
    });
    this.#misfits = new Misfits({ keyPrefix, held: () => this.held(), redis, metrics, log });
    this.#refusals = new Refusals({
      ...{ isHeld: (name) => this.#held.has(name), metrics, log },
      versionRetryMs: config.timing.versionRetryMs,
    });
  }

  /** Notes a misfit for every worker; see `Misfits.note`. */
  noteMisfit(runQueue: RunQueue, reason: string): Promise<void> {
    return this.#misfits.note(runQueue, reason);
  }

  /**
   * Scans at once, and from then on every second until closed. Resolves when every version is served, refused, or being
   * loaded in a process of its own, and none is the only one left to wait for. Rejects where the repository cannot be
   * read.
   */
  async start(): Promise<void> {
    await this.scan(true);
    this.#timer = setInterval(() => {
      if (this.#scans === 0)
        this.scan(false).catch((error) => this.#options.log.warn("the models folder cannot be read", { error }));
    }, scanEveryMs);
    await Promise.all(this.#loader.loading().map(({ doneOrAside }) => doneOrAside));
    for (let left = this.#loader.loading(); this.#held.size === 0 && left.length > 0; left = this.#loader.loading())
      await Promise.race(left.map(({ done }) => done));
  }

  /** Resolves when no load of a model is under way that has begun before. */
  async loaded(model: string): Promise<void> {
    await Promise.all(this.#loader.loading(model).map(({ done }) => done));
  }

  /** The versions that are being loaded. */
  loading(): { model: string; version: string }[] {
    return this.#loader.loading().map(({ found: { model, version } }) => ({ model, version }));
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
        state: this.#drains.has(loaded) ? "draining" : "ready",
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

  /** Announces every served version again, to a store that has lost the announcements. */
  async announceAgain(): Promise<void> {
    for (const loaded of this.held()) {
      if (!this.#drains.has(loaded)) await announceHeld(this.#options, loaded);
    }
  }

  /**
   * Stops scanning. From now on no version is added. Resolves when the current scan is over and the pool has ended its
   * loads. May be called twice.
   */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    await Promise.all([this.#scanning, this.#loader.close()]);
  }

  async #scan(atOnce: boolean): Promise<void> {
    const { config, dispatcher, pool } = this.#options;
    const held = new Set([...this.#held.values()].map(({ model }) => model));
    const { bad, folders } = await listVersions(config.modelsDir, config.modelGlobs, held);
    const unloaded = await this.#unloaded(new Set(folders.map(({ model }) => model)));
    const inService = folders.filter((folder) => !unloaded.has(nameOf(folder)));
    const wanted = new Map(inService.map((folder) => [nameOf(folder), folder]));
    // A slot may be unable to load a version again; a version that no slot holds is not served.
    for (const loaded of this.#held.values()) {
      if (pool.holds(loaded.request.key)) continue;
      this.#options.log.error("no slot holds a version any more", { model: loaded.model, version: loaded.version });
      this.#forget(loaded);
      if (!wanted.has(nameOf(loaded))) await this.#drains.retire(loaded);
      await this.#options.serving.remove(loaded);
    }
    const isBad = new Set(bad.map(nameOf));
    // A folder that is still being written has a fault for the moment.
    const lasting = bad.filter((one) => atOnce || this.#seenBad.get(nameOf(one)) === one.reason);
    this.#seenBad = new Map(bad.map((one) => [nameOf(one), one.reason]));
    this.#refusals.update(lasting, isBad, wanted, unloaded);
    this.#loader.dropOthers(wanted);
    await this.#load([...wanted.values()].filter((folder) => this.#isDue(folder, atOnce)));
    this.#seen = new Map(folders.map((folder) => [nameOf(folder), folder.stamp]));
    for (const [name, loaded] of this.#held) {
      const folder = wanted.get(name);
      // A folder that has become bad is not gone; its loaded version is still good.
      if (folder === undefined && !(isBad.has(name) && !unloaded.has(name))) await this.#drains.begin(loaded);
      // Back with the same files, and not retired. Otherwise the folder is loaded once the old version is gone.
      // Another worker may have retired it; and APIs are to find it at once, not with the next beat.
      else if (folder?.stamp === loaded.stamp && this.#drains.cancel(loaded)) await announceHeld(this.#options, loaded);
    }
    await this.#drains.advance();
    // A job whose version went between its take and its wait for a slot goes back to the queue.
    dispatcher.releaseOthers(
      new Set([...this.#held.values(), ...this.#drains.replaced()].map(({ request }) => request.key)),
    );
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
    if (this.#held.get(name)?.stamp === folder.stamp || this.#loader.isLoading(name, folder.stamp)) return false;
    if (!atOnce && this.#refusals.holdsBack(name, folder.stamp)) return false;
    return atOnce || this.#seen.get(name) === folder.stamp;
  }

  async #load(folders: readonly VersionFolder[]): Promise<void> {
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
    await this.#loader.begin(found);
  }

  /** Takes the outcome of a load: serves the version, or refuses it. */
  #take(result: Loading): void {
    const { log, serving } = this.#options;
    if ("reason" in result) {
      this.#refusals.refuse(result.found, result.reason, result.found.stamp, result.passing);
      return;
    }
    const { loaded } = result;
    const name = nameOf(loaded);
    const before = this.#held.get(name);
    this.#held.set(name, loaded);
    this.#refusals.delete(name);
    this.#misfits.showJoining(loaded);
    serving.add(loaded);
    if (before !== undefined) this.#drains.replace(before);
    log.info("version loaded", { model: loaded.model, version: loaded.version, digest: loaded.digest });
  }

  #forget(loaded: LoadedVersion): void {
    this.#drains.forget(loaded);
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
  clock: Clock;
  metrics: WorkerMetrics;
  log: Logger;
}

const sameManifest = ({ announcement }: LoadedVersion, { manifest }: FoundVersion): boolean =>
  JSON.stringify(announcement.manifest) === JSON.stringify(manifest);
