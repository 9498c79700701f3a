import type { WorkerConfig } from "@millrace/shared/config/worker-config.js";
import { noteUnjoined, readUnjoined, reasonUnjoined } from "@millrace/shared/models/unjoined.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { retireVersion } from "@millrace/shared/scripts/models/announce.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { isBacklogYounger } from "../queue/backlog.js";
import type { Dispatcher, Lane } from "../runs/dispatcher.js";
import type { SlotPool } from "../runs/slot-pool.js";
import { type LoadedVersion, type Loading, loadVersions, type Passing } from "./load-versions.js";
import { type BadModel, type FoundVersion, listVersions, readVersion, type VersionFolder } from "./model-repository.js";
import type { Serving } from "./serve-model.js";

/** What this worker has to say of one version. */
export interface VersionState {
  model: string;
  version: string | null;
  state: "ready" | "draining" | "refused";
  digest: string | null;
  reason: string | null;
}

/** What has waited for longer than this behind others when its version goes ends as failed. */
const longestDrainMs = 600_000;
const lookEveryMs = 1000;
const longestDeathRetryMs = 600_000;

interface Refusal extends BadModel {
  stamp: string | null;
  /** May be tried again after this, in ms since the epoch, though its files are the same. */
  retryAt: number;
  /** Times that whoever loaded these files died. */
  deaths: number;
}

/**
 * Keeps what is served in step with the model repository: looks at it every second and when an admin asks, loads what is
 * new beside what runs, and lets go of what was taken away once it is drained. It rests on these rules:
 * - A folder is loaded when two looks in a row have seen the same files, so that nothing half-copied is.
 * - The bytes of a version that is served never change; other bytes are another version. A changed `model.json` is loaded
 *   beside the old and takes its place.
 * - A version that goes stops counting as alive first, so that APIs choose others; then it is taken back, so that whoever
 *   names it hears that it is unknown; and all the while what comes for it is run, until no work for it can be left.
 */
export class VersionKeeper {
  readonly #options: KeeperOptions;
  readonly #held = new Map<string, LoadedVersion>();
  /** Versions that are to go, since when, and when they were taken back; and those whose place was taken by the same version with another manifest. */
  readonly #draining = new Map<LoadedVersion, { begunAt: number; retiredAt: number | null }>();
  readonly #replaced = new Set<LoadedVersion>();
  /** Versions that a run here has shown to give outputs that are not one a row, and why, until Redis knows. */
  readonly #untold = new Map<LoadedVersion, string>();
  readonly #refused = new Map<string, Refusal>();
  #seen = new Map<string, string>();
  #lastKey = 0;
  #timer: NodeJS.Timeout | null = null;
  #looking: Promise<void> = Promise.resolve();
  /** Looks that are going on or waiting. */
  #looks = 0;
  #closed = false;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Looks for the first time, and from then on every second until closed. Rejects where the repository cannot be read. */
  async start(): Promise<void> {
    await this.look(true);
    this.#timer = setInterval(() => {
      if (this.#looks === 0)
        this.look(false).catch((error) => this.#options.log.warn("the models folder cannot be read", { error }));
    }, lookEveryMs);
  }

  /** Brings what is served in step with the folder; `atOnce`: also what was not seen there before. One at a time. */
  look(atOnce: boolean): Promise<void> {
    this.#looks += 1;
    const look = this.#looking
      .then(() => (this.#closed ? undefined : this.#look(atOnce)))
      .finally(() => {
        this.#looks -= 1;
      });
    this.#looking = look.catch(() => undefined);
    return look;
  }

  /** Every version that this worker serves, is about to let go of, or refuses. */
  states(): VersionState[] {
    const held = [...this.#held.values()].map(
      (loaded): VersionState => ({
        ...{ model: loaded.model, version: loaded.version, digest: loaded.digest, reason: null },
        state: this.#draining.has(loaded) ? "draining" : "ready",
      }),
    );
    const refused = [...this.#refused.values()].map(
      ({ model, reason, version }): VersionState => ({ model, version, state: "refused", digest: null, reason }),
    );
    return [...held, ...refused];
  }

  /** Every version that this worker has in its slots. */
  held(): LoadedVersion[] {
    return [...this.#held.values()];
  }

  /** Looks no more; what a look that has begun still loads is not served. Resolves when it is over. May be called twice. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    await this.#looking;
  }

  async #look(atOnce: boolean): Promise<void> {
    const { config, dispatcher, pool, redis } = this.#options;
    const { bad, folders } = await listVersions(config.modelsDir, config.modelGlobs);
    const unloaded = await this.#unloaded(new Set(folders.map(({ model }) => model)));
    const inService = folders.filter((folder) => !unloaded.has(nameOf(folder)));
    const wanted = new Map(inService.map((folder) => [nameOf(folder), folder]));
    // A slot may be unable to load again what it once held; where none has it, it is not served.
    for (const loaded of this.#held.values()) {
      if (pool.holds(loaded.request.key)) continue;
      this.#options.log.error("no slot holds a version any more", { model: loaded.model, version: loaded.version });
      this.#forget(loaded);
      if (!wanted.has(nameOf(loaded))) await this.#takeBack(loaded);
      await this.#options.serving.remove(loaded);
    }
    const isBad = new Set(bad.map(nameOf));
    this.#noteRefusals(bad, isBad, wanted, unloaded);
    await this.#load([...wanted.values()].filter((folder) => this.#isDue(folder, atOnce)));
    this.#seen = new Map(folders.map((folder) => [nameOf(folder), folder.stamp]));
    for (const [name, loaded] of this.#held) {
      const folder = wanted.get(name);
      // What has become bad is not gone: what was loaded of it is still good.
      if (folder === undefined && !(isBad.has(name) && !unloaded.has(name))) await this.#beginDrain(loaded);
      // Back as it was, and still known. Otherwise what is there is loaded when the old has gone.
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
    // A job that was between finding its version and waiting for a slot when the version went finds another, or its end.
    dispatcher.releaseOthers(new Set([...this.#held.values(), ...this.#replaced].map(({ request }) => request.key)));
    await this.#heedMisfits().catch((error: Error) =>
      this.#options.log.warn("what runs have shown of versions elsewhere cannot be read", { error }),
    );
  }

  /**
   * Tells every worker that a version's outputs are not one a row, so that none lets its inputs share a run until it is
   * loaded anew. Never rejects: each worker looks at its own runs anyway.
   */
  async noteMisfit(lane: Lane, reason: string): Promise<void> {
    const { log, metrics } = this.#options;
    const { model, version } = lane;
    const loaded = [...this.#held.values()].find((held) => held.lane === lane);
    log.error("a version's outputs are not one a row, so its inputs share no run any more", { model, version, reason });
    metrics.misfits.inc({ model, version });
    if (loaded === undefined) return;
    this.#tellJoining(loaded);
    this.#untold.set(loaded, reason);
    await this.#tellMisfits().catch((error: Error) => log.warn("a misfit is told to other workers later", { error }));
  }

  async #tellMisfits(): Promise<void> {
    const { config, redis } = this.#options;
    for (const [{ announcement, model, version }, reason] of this.#untold) {
      const { fingerprint = "" } = announcement;
      await noteUnjoined(redis, modelKeys(config.keyPrefix, model), { version, fingerprint, reason });
    }
    this.#untold.clear();
  }

  /** Lets inputs of versions share no run that another worker has found to give outputs that are not one a row. */
  async #heedMisfits(): Promise<void> {
    const { config, log, redis } = this.#options;
    await this.#tellMisfits();
    const models = new Set([...this.#held.values()].filter(({ lane }) => lane.joinable).map(({ model }) => model));
    for (const model of models) {
      const unjoined = await readUnjoined(redis, modelKeys(config.keyPrefix, model));
      for (const loaded of this.#held.values()) {
        const { announcement, lane, version } = loaded;
        const reason = loaded.model === model ? reasonUnjoined(unjoined, announcement) : null;
        if (reason === null || !lane.joinable) continue;
        lane.joinable = false;
        this.#tellJoining(loaded);
        log.warn("inputs of a version share no run, as another worker has found", { model, version, reason });
      }
    }
  }

  #tellJoining({ lane, model, version }: LoadedVersion): void {
    const { joining, misfits } = this.#options.metrics;
    joining.set({ model, version }, lane.joinable ? 1 : 0);
    // From 0, because an alert cannot see the rise of a counter that begins with 1.
    misfits.inc({ model, version }, 0);
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

  /** Whether a folder is to be read and loaded now. */
  #isDue(folder: VersionFolder, atOnce: boolean): boolean {
    const name = nameOf(folder);
    if (this.#held.get(name)?.stamp === folder.stamp) return false;
    const refusal = this.#refused.get(name);
    if (refusal?.stamp === folder.stamp && refusal.retryAt > Date.now() && !atOnce) return false;
    return atOnce || this.#seen.get(name) === folder.stamp;
  }

  async #load(folders: readonly VersionFolder[]): Promise<void> {
    const { log, serving } = this.#options;
    const found: FoundVersion[] = [];
    for (const folder of folders) {
      const read = await readVersion(folder, this.#options.config.modelPublicKeys).catch((fault: Error) => fault);
      if (read instanceof Error) {
        this.#refuse(folder, read.message, folder.stamp);
        continue;
      }
      const held = this.#held.get(nameOf(folder));
      if (held !== undefined && held.digest !== read.digest) {
        const reason = `its files have changed while it is served (${held.digest}, now ${read.digest}): make it a new version`;
        this.#refuse(folder, reason, folder.stamp);
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
        this.#refuse(result.found, result.reason, result.found.stamp, result.passing);
        continue;
      }
      const { loaded } = result;
      const name = nameOf(loaded);
      const before = this.#held.get(name);
      this.#held.set(name, loaded);
      this.#refused.delete(name);
      this.#tellJoining(loaded);
      serving.add(loaded);
      if (before !== undefined) {
        this.#draining.delete(before);
        this.#replaced.add(before);
      }
      log.info("version loaded", { model: loaded.model, version: loaded.version, digest: loaded.digest });
    }
  }

  #refuse(
    bad: Pick<BadModel, "model" | "version">,
    reason: string,
    stamp: string | null,
    passing: Passing | null = null,
  ): void {
    const { config, log, metrics } = this.#options;
    const { model, version } = bad;
    const { versionRetryMs } = config.timing;
    const name = nameOf(bad);
    const before = this.#refused.get(name);
    const deaths = passing === "death" ? 1 + (before?.stamp === stamp ? before.deaths : 0) : 0;
    const deathRetryMs = Math.min(longestDeathRetryMs, versionRetryMs * 2 ** (deaths - 1));
    const retryMs = { conflict: versionRetryMs, death: deathRetryMs };
    const retryAt = passing === null ? Number.POSITIVE_INFINITY : Date.now() + retryMs[passing];
    this.#refused.set(name, { model, version, reason, stamp, retryAt, deaths });
    if (before?.reason !== reason) log.error("model cannot be served", { model, version, reason });
    if (!this.#held.has(name)) metrics.modelLoaded.set({ model, version: version ?? "" }, 0);
  }

  /** What is wrong from outside is refused as long as it is; what is gone, or taken out of service, is refused no more. */
  #noteRefusals(
    bad: readonly BadModel[],
    isBad: ReadonlySet<string>,
    wanted: ReadonlyMap<string, unknown>,
    unloaded: ReadonlySet<string>,
  ): void {
    for (const refused of bad) {
      if (!unloaded.has(nameOf(refused))) this.#refuse(refused, refused.reason, null);
    }
    for (const [name, { model, stamp, version }] of this.#refused) {
      const holds = stamp === null ? isBad.has(name) : wanted.has(name);
      if (holds && !unloaded.has(name)) continue;
      this.#refused.delete(name);
      if (!this.#held.has(name)) this.#options.metrics.modelLoaded.remove({ model, version: version ?? "" });
    }
  }

  async #beginDrain(loaded: LoadedVersion): Promise<void> {
    if (this.#draining.has(loaded)) return;
    this.#options.log.info("version leaves", { model: loaded.model, version: loaded.version });
    this.#draining.set(loaded, { begunAt: Date.now(), retiredAt: null });
    await this.#options.serving.leave(loaded);
  }

  /** Takes drains a step on: first the version is taken back, then let go of. */
  async #endDrains(redis: RedisClient): Promise<void> {
    const { config, dispatcher, log, pool, serving } = this.#options;
    const { versionNoticedMs: noticedMs } = config.timing;
    for (const [loaded, drain] of this.#draining) {
      const { model, version } = loaded;
      const now = Date.now();
      const keys = modelKeys(config.keyPrefix, model);
      if (drain.retiredAt === null) {
        if (now - drain.begunAt < noticedMs) continue;
        await this.#takeBack(loaded);
        drain.retiredAt = Date.now();
        continue;
      }
      const noticedAt = drain.retiredAt + noticedMs;
      if (now < noticedAt || dispatcher.holds(loaded.request.key)) continue;
      if (now - drain.begunAt < longestDrainMs && !(await isBacklogYounger(redis, keys, noticedAt))) continue;
      this.#forget(loaded);
      await serving.remove(loaded);
      // A job that was taken in the meantime has found it, and waits for its slot.
      if (dispatcher.holds(loaded.request.key)) this.#replaced.add(loaded);
      else pool.unload(loaded.request.key);
      log.info("version unloaded", { model, version });
    }
  }

  /** From now on the version is unknown, unless another worker serves it. */
  async #takeBack({ model, version }: LoadedVersion): Promise<void> {
    const { config, redis, workerId } = this.#options;
    const keys = modelKeys(config.keyPrefix, model);
    await retireVersion(redis, config.keyPrefix, keys, { model, version, worker: workerId });
  }

  #forget(loaded: LoadedVersion): void {
    this.#draining.delete(loaded);
    this.#held.delete(nameOf(loaded));
    this.#refused.delete(nameOf(loaded));
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

const nameOf = ({ model, version }: { model: string; version: string | null }): string => `${model}/${version ?? ""}`;

const sameManifest = ({ announcement }: LoadedVersion, { manifest }: FoundVersion): boolean =>
  JSON.stringify(announcement.manifest) === JSON.stringify(manifest);
