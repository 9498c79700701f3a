import { readStored } from "@millrace/shared/predictions/storage-counter.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { ModelDirectory } from "../models/model-directory.js";
import type { RedisMemory } from "./redis-memory.js";

const lookEveryMs = 1000;
/** An owner who asked for nothing that long is not looked at. */
const activeMs = 10_000;
/** Results leave slowly, by their time. */
const retryAfterSeconds = 60;

interface OwnerStorageOptions {
  redis: RedisClient;
  memory: Pick<RedisMemory, "limitBytes">;
  directory: Pick<ModelDirectory, "all">;
  keyPrefix: string;
  resultTtlSeconds: number;
  /** Part of the memory for new work that one owner may use; 1: all of it, and nothing is counted. */
  ownerPart: number;
  clock: Clock;
  log: Logger;
}

interface Account {
  bytes: number;
  /** Bytes of uploads of this process that are no batches yet. */
  uploading: number;
  askedAt: number;
}

/** Bytes of an upload that is no batch yet. */
export interface UploadAccount {
  set(bytes: number): void;
  close(): void;
}

/**
 * Watches over what each owner has in Redis: results until their time is over, and rows of batches that wait. Looks
 * once a second at the owners who are active, and never in a request. From the owner's part of the memory on, new work
 * of the owner is refused, so that there is room for others'.
 */
export class OwnerStorage {
  readonly #options: OwnerStorageOptions;
  readonly #accounts = new Map<string, Account>();
  #timer: NodeJS.Timeout | undefined;
  #looking = false;

  constructor(options: OwnerStorageOptions) {
    this.#options = options;
    if (options.ownerPart < 1) this.#timer = setInterval(() => void this.#look(), lookEveryMs);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Throws `memory_pressure` where the owner has as much in Redis as one owner may. */
  assertCapacity(owner: string): void {
    if (this.#timer === undefined) return;
    const { bytes, uploading } = this.#accountOf(owner);
    const limit = this.#options.memory.limitBytes * this.#options.ownerPart;
    if (limit === 0 || bytes + uploading < limit) return;
    const megabytes = Math.round((bytes + uploading) / 1e6);
    const detail =
      `Your results and waiting rows take ${megabytes} MB, which is the part of one owner (MAX_OWNER_PART). ` +
      "New work is accepted again when some of them have expired.";
    throw new ServiceError("memory_pressure", detail, { retryAfterSeconds });
  }

  /** An account for an upload, to be closed when it is a batch or dropped. */
  openUpload(owner: string): UploadAccount {
    const account = this.#accountOf(owner);
    let held = 0;
    const set = (bytes: number) => {
      account.uploading += bytes - held;
      held = bytes;
    };
    return { set, close: () => set(0) };
  }

  #accountOf(owner: string): Account {
    const now = performance.now();
    const account = this.#accounts.get(owner) ?? { bytes: 0, uploading: 0, askedAt: now };
    account.askedAt = now;
    this.#accounts.set(owner, account);
    return account;
  }

  async #look(): Promise<void> {
    const now = performance.now();
    for (const [owner, { askedAt, uploading }] of this.#accounts) {
      if (now - askedAt > activeMs && uploading === 0) this.#accounts.delete(owner);
    }
    const owners = [...this.#accounts.keys()];
    if (this.#looking || owners.length === 0) return;
    this.#looking = true;
    const { clock, directory, keyPrefix, log, redis, resultTtlSeconds } = this.#options;
    try {
      const [stored, ...waiting] = await Promise.all([
        readStored(redis, keyPrefix, { nowMs: clock.now(), resultTtlSeconds }, owners),
        ...directory.all().map(({ keys }) => redis.hmget(keys.bulkBytesOf, ...owners)),
      ]);
      for (const [i, owner] of owners.entries()) {
        const account = this.#accounts.get(owner);
        const bytes = waiting.reduce((sum, each) => sum + Number(each[i] ?? 0), stored[i] ?? 0);
        if (account !== undefined) account.bytes = bytes;
      }
    } catch (error) {
      log.debug("stored bytes of owners not read", { error });
    } finally {
      this.#looking = false;
    }
  }
}
