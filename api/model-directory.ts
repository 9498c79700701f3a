import { type Announcement, announcementSchema } from "@millrace/shared/announcement.js";
import type { RedisClient } from "@millrace/shared/connect-redis.js";
import { type ModelKeys, modelKeys, modelTag, registryKey } from "@millrace/shared/keys.js";
import type { Logger } from "@millrace/shared/log.js";
import { packerOf } from "@millrace/shared/pack-input.js";
import type { Packer } from "@millrace/shared/packer.js";

/** One version as its workers announced it. */
export interface KnownVersion {
  announcement: Announcement;
  pack: Packer;
}

/** A model that was announced once; it stays known when its workers are away. */
export interface KnownModel {
  name: string;
  keys: ModelKeys;
  versions: ReadonlyMap<string, KnownVersion>;
  /** The version that a submission gets which names none: the highest that a living worker serves, else the highest. */
  defaultVersion: string;
  /** Living workers of each version, and of the model. */
  workers: ReadonlyMap<string, number>;
  workersAlive: number;
}

interface Entry {
  revision: string;
  keys: ModelKeys;
  versions: Map<string, KnownVersion>;
  workers: Map<string, number>;
  workersAlive: number;
}

const refreshEveryMs = 2000;

/**
 * What the API knows of models, which is only what workers announced in Redis. Refreshed every 2 s; an unknown name
 * makes it look again before it is called unknown.
 */
export class ModelDirectory {
  readonly #redis: RedisClient;
  readonly #prefix: string;
  readonly #log: Logger;
  readonly #entries = new Map<string, Entry>();
  readonly #byTag = new Map<string, string>();
  #refreshing: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;

  constructor(redis: RedisClient, prefix: string, log: Logger) {
    this.#redis = redis;
    this.#prefix = prefix;
    this.#log = log;
  }

  /** Reads the registry once and then every 2 s until closed. */
  async start(): Promise<void> {
    await this.refresh();
    this.#timer = setInterval(() => {
      this.refresh().catch((error) => this.#log.debug("models could not be read", { error }));
    }, refreshEveryMs);
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  all(): KnownModel[] {
    return [...this.#entries.keys()].sort().map((name) => this.#known(name) as KnownModel);
  }

  /** A model by its name; looks into Redis again before it answers null. */
  async find(name: string): Promise<KnownModel | null> {
    if (!this.#entries.has(name)) {
      const revision = await this.#redis.hget(registryKey(this.#prefix), name);
      if (revision !== null) await this.#readModel(name, revision);
    }
    return this.#known(name);
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

  async refresh(): Promise<void> {
    this.#refreshing ??= this.#readAll().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #readAll(): Promise<void> {
    const revisions = await this.#redis.hgetall(registryKey(this.#prefix));
    await Promise.all(Object.entries(revisions).map(([name, revision]) => this.#readModel(name, revision)));
  }

  async #readModel(name: string, revision: string): Promise<void> {
    let entry = this.#entries.get(name);
    if (entry === undefined || entry.revision !== revision) {
      const keys = modelKeys(this.#prefix, name);
      const versions = new Map<string, KnownVersion>();
      const announced = Object.entries(await this.#redis.hgetall(keys.versions)).sort(
        ([a], [b]) => Number(a) - Number(b),
      );
      for (const [version, text] of announced) {
        const parsed = announcementSchema.safeParse(JSON.parse(text));
        if (parsed.success) versions.set(version, { announcement: parsed.data, pack: packerOf(parsed.data) });
        else this.#log.warn("an announcement cannot be read", { model: name, version });
      }
      if (versions.size === 0) return;
      entry = { revision, keys, versions, workers: new Map(), workersAlive: 0 };
      this.#entries.set(name, entry);
      this.#byTag.set(keys.tag, name);
    }
    const members = await this.#redis.zrangebyscore(entry.keys.beats, Date.now(), "+inf");
    const workers = new Map<string, number>();
    for (const member of members) {
      const version = member.slice(member.indexOf("|") + 1);
      workers.set(version, (workers.get(version) ?? 0) + 1);
    }
    entry.workers = workers;
    entry.workersAlive = new Set(members.map((member) => member.slice(0, member.indexOf("|")))).size;
  }

  #known(name: string): KnownModel | null {
    const entry = this.#entries.get(name);
    if (entry === undefined) return null;
    const versions = [...entry.versions.keys()];
    const alive = versions.filter((version) => entry.workers.has(version));
    const defaultVersion = (alive.at(-1) ?? versions.at(-1)) as string;
    return {
      name,
      keys: entry.keys,
      versions: entry.versions,
      defaultVersion,
      workers: entry.workers,
      workersAlive: entry.workersAlive,
    };
  }
}
