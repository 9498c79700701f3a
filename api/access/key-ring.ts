import { hash, timingSafeEqual } from "node:crypto";
import { readFileSync, unwatchFile, watchFile } from "node:fs";
import { type ApiKey, parseApiKeys, type Scope } from "@millrace/shared/access/api-keys.js";
import { listKeys, noteUses, type StoredKey } from "@millrace/shared/access/key-store.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { keyChangesChannel } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { Logger } from "@millrace/shared/service/log.js";

/** A caller: the name of its key is the owner of all that it submits, and of nothing else. */
export interface Caller {
  owner: string;
  scopes: ReadonlySet<Scope>;
  /** Scopes that hold for some models only. */
  models?: ReadonlyMap<Scope, readonly string[]>;
  /** Tells one key of an owner from another. */
  keyId: string;
}

interface Entry {
  digest: Buffer;
  caller: Caller;
  expiresAt: number;
  /** Whether Redis has it, where its use is noted. */
  stored: boolean;
}

export interface KeyRingOptions {
  redis: RedisClient;
  subscriber: RedisClient;
  prefix: string;
  clock: Clock;
  log: Logger;
  /** From the environment. */
  fixed: readonly ApiKey[];
  /** Watched; its keys take the place of those that it held before, first of these. */
  file: string | undefined;
  inFile: readonly ApiKey[];
}

const lookEveryMs = 10_000;
const fileLookEveryMs = 1000;
const noteEveryMs = 30_000;

/**
 * The keys that this API knows: from the environment, from a file, and from Redis, whose changes it hears of at once
 * and looks for every 10 s, should it not have heard.
 */
export class KeyRing {
  readonly #options: KeyRingOptions;
  #fromFile: readonly ApiKey[];
  #fromRedis: readonly StoredKey[] = [];
  /** By the first bytes of the digest, which tell nobody anything of a key; the rest is compared in constant time. */
  #entries = new Map<number, Entry[]>();
  #uses = new Map<string, number>();
  #reading: Promise<void> = Promise.resolve();
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #onFile = () => this.#readFile();
  readonly #look = () => {
    this.#readRedis().catch((error) => this.#options.log.debug("keys could not be read", { error }));
  };

  constructor(options: KeyRingOptions) {
    this.#options = options;
    this.#fromFile = options.inFile;
    this.#index();
  }

  /** Reads all keys, and then whatever changes until closed. */
  async start(): Promise<void> {
    const { file, prefix, subscriber } = this.#options;
    if (file !== undefined) watchFile(file, { interval: fileLookEveryMs, persistent: false }, this.#onFile);
    subscriber.on("ready", this.#look);
    subscriber.on("message", (channel: string) => {
      if (channel === keyChangesChannel(prefix)) this.#look();
    });
    await subscriber.subscribe(keyChangesChannel(prefix));
    await this.#readRedis();
    this.#timers.push(setInterval(this.#look, lookEveryMs));
    this.#timers.push(setInterval(() => void this.#note(), noteEveryMs));
  }

  async close(): Promise<void> {
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
    if (this.#options.file !== undefined) unwatchFile(this.#options.file, this.#onFile);
    await this.#note();
  }

  /** Whose key it is, or null for one that is unknown or over. */
  find(presented: string): Caller | null {
    const digest = Buffer.from(hash("sha256", presented, "base64"), "base64");
    let found: Entry | null = null;
    for (const entry of this.#entries.get(digest.readUInt32LE(0)) ?? []) {
      if (timingSafeEqual(entry.digest, digest)) found = entry;
    }
    if (found === null) return null;
    if (!found.stored) return found.caller;
    const now = this.#options.clock.now();
    if (found.expiresAt <= now) return null;
    this.#uses.set(found.caller.keyId, now);
    return found.caller;
  }

  /** Reads the keys of the file; one that cannot be read leaves them as they were, and an error in the log. */
  #readFile(): void {
    const { file, log } = this.#options;
    try {
      this.#fromFile = parseApiKeys(readFileSync(file as string, "utf8"), "API_KEYS_FILE");
      this.#index();
      log.info("keys read from API_KEYS_FILE", { keys: this.#fromFile.length });
    } catch (fault) {
      const { code, message } = fault as NodeJS.ErrnoException;
      log.error("API_KEYS_FILE cannot be read; the keys stay as they were", { error: code ?? message });
    }
  }

  /** One reading after the other, so that what was read first never takes the place of what was read last. */
  #readRedis(): Promise<void> {
    const read = async () => {
      this.#fromRedis = await listKeys(this.#options.redis, this.#options.prefix);
      this.#index();
    };
    this.#reading = this.#reading.then(read, read);
    return this.#reading;
  }

  #index(): void {
    const entries = new Map<number, Entry[]>();
    const add = (key: ApiKey, stored: StoredKey | null) => {
      const { models, owner, scopes, sha256Hex } = key;
      const digest = Buffer.from(sha256Hex, "hex");
      const keyId = stored?.id ?? sha256Hex.slice(0, 16);
      const caller = { owner, scopes, keyId, ...(models !== undefined && { models }) };
      const entry = {
        digest,
        caller,
        expiresAt: stored?.expiresAt ?? Number.POSITIVE_INFINITY,
        stored: stored !== null,
      };
      const beginning = digest.readUInt32LE(0);
      entries.set(beginning, [...(entries.get(beginning) ?? []), entry]);
    };
    for (const key of this.#fromRedis) add(key, key);
    for (const key of this.#fromFile) add(key, null);
    for (const key of this.#options.fixed) add(key, null);
    this.#entries = entries;
  }

  async #note(): Promise<void> {
    const uses = this.#uses;
    this.#uses = new Map();
    await noteUses(this.#options.redis, this.#options.prefix, uses).catch((error) =>
      this.#options.log.debug("the use of keys could not be noted", { error }),
    );
  }
}
