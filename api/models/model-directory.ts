import { type Announcement, announcementSchema, type Joining } from "@millrace/shared/models/announcement.js";
import { breakerOf, closedBreaker, type VersionBreaker } from "@millrace/shared/models/breaker.js";
import type { ModelRefusal } from "@millrace/shared/models/model-order.js";
import { type RefusedModel, readRefusals, readRefusedModels } from "@millrace/shared/models/refused-models.js";
import { readUnjoined, reasonUnjoined, type Unjoined } from "@millrace/shared/models/unjoined.js";
import { packerOf } from "@millrace/shared/packing/pack-input.js";
import type { Packer } from "@millrace/shared/packing/packer.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { digestOf } from "@millrace/shared/redis/digest.js";
import { modelTag } from "@millrace/shared/redis/ids.js";
import { type ModelKeys, modelKeys, registryKey } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { readBreakers } from "@millrace/shared/scripts/models/tell-breaker.js";
import { readTraffic, type StoredTraffic } from "@millrace/shared/scripts/models/traffic.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Logger } from "@millrace/shared/service/log.js";

/** One version as its workers announced it. */
export interface KnownVersion {
  announcement: Announcement;
  pack: Packer;
  /** Digest of its files and its manifest: all that its outputs depend on besides the input. */
  fingerprint: string;
}

/** A model that was announced once; it stays known when its workers are away. */
export interface KnownModel {
  name: string;
  keys: ModelKeys;
  versions: ReadonlyMap<string, KnownVersion>;
  /** The version that most submissions get which name none; see `choose-version.ts`. "" where there is none. */
  defaultVersion: string;
  /**
   * The highest version that a living worker serves and that does not die on all of them, else the highest that one
   * serves, else the highest; shadows left aside; "" where there is none.
   */
  highestVersion: string;
  /** Split of submissions that name no version, as it was read last: up to 2 s ago. */
  traffic: StoredTraffic;
  /** Living workers of each version, and of the model. */
  workers: ReadonlyMap<string, number>;
  workersAlive: number;
  /** Versions that living workers could not load, with the reason. */
  refusals: readonly ModelRefusal[];
  /** Of each version. */
  breakers: ReadonlyMap<string, VersionBreaker>;
  /** Versions whose inputs share no run since one had outputs that were not one per row. */
  unjoined: Unjoined;
}

interface Entry {
  /** Revision and names of the versions when they were read. */
  revision: string;
  keys: ModelKeys;
  versions: Map<string, KnownVersion>;
  traffic: StoredTraffic;
  workers: Map<string, number>;
  workersAlive: number;
  refusals: ModelRefusal[];
  breakers: Map<string, VersionBreaker>;
  unjoined: Unjoined;
}

/**
 * What the API knows of models, which is only what workers announced in Redis. Refreshed every `refreshMs`; an unknown
 * name makes it look again before it is called unknown.
 */
export class ModelDirectory {
  readonly #redis: RedisClient;
  readonly #prefix: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #refreshMs: number;
  readonly #entries = new Map<string, Entry>();
  readonly #byTag = new Map<string, string>();
  /** Of models of any name, also of those that were never announced. */
  #refused: RefusedModel[] = [];
  #refreshing: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;

  constructor(redis: RedisClient, prefix: string, clock: Clock, log: Logger, refreshMs: number) {
    this.#redis = redis;
    this.#prefix = prefix;
    this.#clock = clock;
    this.#log = log;
    this.#refreshMs = refreshMs;
  }

  /** Reads the registry once and then again and again until closed. */
  async start(): Promise<void> {
    await this.refresh();
    this.#timer = setInterval(() => {
      this.refresh().catch((error) => this.#log.debug("models could not be read", { error }));
    }, this.#refreshMs);
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** The models that have a version. */
  all(): KnownModel[] {
    return this.allIncludingRetired().filter(({ versions }) => versions.size > 0);
  }

  /** All models that were ever announced: what was accepted for one that has no version any more is still there. */
  allIncludingRetired(): KnownModel[] {
    return [...this.#entries.keys()].sort().map((name) => this.#known(name) as KnownModel);
  }

  /** Every refusal by a living worker, as it was read last: also of models that were never served, and of folders. */
  refused(): RefusedModel[] {
    const known = this.allIncludingRetired().flatMap(({ name: model, refusals }) =>
      refusals.map((refusal) => ({ model, ...refusal })),
    );
    return [...known, ...this.#refused.filter(({ model }) => !this.#entries.has(model))];
  }

  /** A model by its name; looks into Redis again before it answers null. */
  async find(name: string): Promise<KnownModel | null> {
    return this.#entries.has(name) ? this.#known(name) : this.look(name);
  }

  /** A model with a version that may have been announced since it was read, if there is one of that name. */
  async withVersion(model: KnownModel, version: string): Promise<KnownModel> {
    return model.versions.has(version) ? model : ((await this.look(model.name)) ?? model);
  }

  /** A model by its name, with every version that is announced by now; null where none was ever announced. */
  async findWithAll(name: string): Promise<KnownModel | null> {
    const model = await this.find(name);
    if (model === null) return null;
    const announced = await this.#redis.hkeys(model.keys.versions);
    return announced.every((version) => model.versions.has(version)) ? model : this.look(name);
  }

  /** The model whose ids begin with that tag; looks into Redis again before it answers null. */
  async findByTag(tag: string): Promise<KnownModel | null> {
    if (!this.#byTag.has(tag)) {
      const revisions = Object.entries(await this.#redis.hgetall(registryKey(this.#prefix)));
      const found = revisions.find(([name]) => modelTag(name) === tag);
      if (found !== undefined) await this.#readModel(...found);
    }
    const name = this.#byTag.get(tag);
    return name === undefined ? null : this.#known(name);
  }

  /** A model as it stands in Redis now; null where none of this name was ever announced. */
  async look(name: string): Promise<KnownModel | null> {
    const revision = await this.#redis.hget(registryKey(this.#prefix), name);
    if (revision !== null) await this.#readModel(name, revision);
    return this.#known(name);
  }

  async refresh(): Promise<void> {
    this.#refreshing ??= this.#readAll().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #readAll(): Promise<void> {
    const revisions = await this.#redis.hgetall(registryKey(this.#prefix));
    // Models that have left the registry, as they do with an emptied store, have no workers and versions any more.
    const names = new Set([...Object.keys(revisions), ...this.#entries.keys()]);
    const [refused] = await Promise.all([
      readRefusedModels(this.#redis, this.#prefix, this.#clock.now()),
      ...[...names].map((name) => this.#readModel(name, revisions[name] ?? "")),
    ]);
    this.#refused = refused;
  }

  async #readModel(name: string, registered: string): Promise<void> {
    let entry = this.#entries.get(name);
    const keys = entry?.keys ?? modelKeys(this.#prefix, name);
    // The registry is not in the model's slot: a worker that retires a version may die before it writes to it.
    const revision = `${registered}|${(await this.#redis.hkeys(keys.versions)).sort()}`;
    if (entry === undefined || entry.revision !== revision) {
      const versions = new Map<string, KnownVersion>();
      const announced = Object.entries(await this.#redis.hgetall(keys.versions)).sort(
        ([a], [b]) => Number(a) - Number(b),
      );
      for (const [version, text] of announced) {
        const parsed = announcementSchema.safeParse(JSON.parse(text));
        if (parsed.success) {
          const { digest, manifest } = parsed.data;
          const fingerprint = digestOf(digest, JSON.stringify(manifest));
          versions.set(version, {
            announcement: parsed.data,
            pack: packerOf(parsed.data, { takesPairs: parsed.data.joining !== undefined }),
            fingerprint,
          });
        } else this.#log.warn("an announcement cannot be read", { model: name, version });
      }
      const traffic = await readTraffic(this.#redis, keys);
      // One that has lost its last version stays known, because its ids do.
      entry = {
        revision,
        keys,
        versions,
        traffic,
        workers: new Map(),
        workersAlive: 0,
        refusals: [],
        breakers: new Map(),
        unjoined: new Map(),
      };
      this.#entries.set(name, entry);
      this.#byTag.set(keys.tag, name);
    }
    const now = this.#clock.now();
    const [members, breakers, refusals, traffic, unjoined] = await Promise.all([
      this.#redis.zrangebyscore(entry.keys.beats, now, "+inf"),
      readBreakers(this.#redis, entry.keys, now),
      readRefusals(this.#redis, entry.keys.refusals, now),
      readTraffic(this.#redis, entry.keys),
      readUnjoined(this.#redis, entry.keys),
    ]);
    entry.unjoined = unjoined;
    entry.traffic = traffic;
    entry.refusals = refusals;
    const alive = new Map<string, string[]>();
    for (const member of members) {
      const bar = member.indexOf("|");
      const version = member.slice(bar + 1);
      alive.set(version, [...(alive.get(version) ?? []), member.slice(0, bar)]);
    }
    entry.workers = new Map([...alive].map(([version, ids]) => [version, ids.length]));
    entry.breakers = new Map(
      [...entry.versions.keys()].map((version) => [version, breakerOf(version, breakers, alive.get(version) ?? [])]),
    );
    entry.workersAlive = new Set(members.map((member) => member.slice(0, member.indexOf("|")))).size;
  }

  #known(name: string): KnownModel | null {
    const entry = this.#entries.get(name);
    if (entry === undefined) return null;
    const { traffic, workers } = entry;
    const highestVersion = highest(entry);
    const { weights } = traffic;
    const heaviest = [...entry.versions.keys()]
      .filter((version) => (weights?.[version] ?? 0) > 0)
      .sort((a, b) => (weights?.[b] ?? 0) - (weights?.[a] ?? 0));
    return {
      name,
      keys: entry.keys,
      versions: entry.versions,
      defaultVersion: heaviest[0] ?? highestVersion,
      highestVersion,
      traffic,
      workers,
      workersAlive: entry.workersAlive,
      refusals: entry.refusals,
      breakers: entry.breakers,
      unjoined: entry.unjoined,
    };
  }
}

/** A version of a model; "" is the default of one that has none left. Throws `version_not_found`. */
export function versionOf({ versions }: KnownModel, name: string): KnownVersion {
  const version = versions.get(name);
  if (version !== undefined) return version;
  const detail = name === "" ? "The model has no version left." : `The model has no version ${name}.`;
  throw new ServiceError("version_not_found", detail);
}

/** The breaker of a version; closed for one that nobody knows. */
export const breakerOfVersion = ({ breakers }: KnownModel, version: string): VersionBreaker =>
  breakers.get(version) ?? closedBreaker;

/** Whether a version's inputs share runs, and why, as its workers found out. */
export function joiningOf({ unjoined }: KnownModel, announcement: Announcement): Joining {
  const reason = reasonUnjoined(unjoined, announcement);
  if (reason !== null) return { mode: "off", reason };
  const { joinable, joining } = announcement;
  return (
    joining ?? { mode: joinable ? "declared" : "off", reason: "announced by an older release, which does not say" }
  );
}

/** A version that is only to be compared takes no traffic unless there is no other. */
function highest({ breakers, traffic, versions, workers }: Entry): string {
  const all = [...versions.keys()];
  const open = all.filter((version) => !traffic.shadow.includes(version));
  const alive = (candidates: string[]) => candidates.filter((version) => workers.has(version));
  const well = alive(open).filter((version) => breakers.get(version)?.refuses !== true);
  return well.at(-1) ?? alive(open).at(-1) ?? alive(all).at(-1) ?? open.at(-1) ?? all.at(-1) ?? "";
}
