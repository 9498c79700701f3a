import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { breakerOfVersion, type KnownModel } from "../models/model-directory.js";
import type { OwnerStorage } from "./owner-storage.js";
import type { RedisMemory } from "./redis-memory.js";

interface NewWorkDependencies {
  redis: RedisClient;
  memory: RedisMemory;
  storage: OwnerStorage;
  clock: Clock;
}

/**
 * Throws `memory_pressure`, `redis_full` or `breaker_open` where no new work of the owner is taken for a version. Asks
 * nobody.
 */
export function assertCapacity(
  deps: Pick<NewWorkDependencies, "clock" | "memory" | "storage">,
  owner: string,
  model: KnownModel,
  version: string,
): void {
  assertRoom(deps, owner, model);
  assertBreakerClosed(model, version, deps.clock);
}

/** The same for work of which the version is not known yet: where no version is left that it could be for. */
export function assertAnyCapacity(
  deps: Pick<NewWorkDependencies, "clock" | "memory" | "storage">,
  owner: string,
  model: KnownModel,
): void {
  assertRoom(deps, owner, model);
  const [first, ...others] = [...model.versions.keys()].sort((a, b) => retryAtOf(model, a) - retryAtOf(model, b));
  if (first !== undefined && [first, ...others].every((version) => breakerOfVersion(model, version).refuses)) {
    assertBreakerClosed(model, first, deps.clock);
  }
}

/** Throws `memory_pressure` or `redis_full` where there is no room for new work of the owner. Asks nobody. */
export function assertRoom(
  { memory, storage }: Pick<NewWorkDependencies, "memory" | "storage">,
  owner: string,
  model: KnownModel,
): void {
  memory.assertCapacity(model.keys);
  storage.assertCapacity(owner);
}

const retryAtOf = (model: KnownModel, version: string): number => breakerOfVersion(model, version).retryAt ?? 0;

/** Throws `breaker_open` where a version dies on every worker that has it. */
export function assertBreakerClosed(model: KnownModel, version: string, clock: Clock): void {
  const { refuses, retryAt } = breakerOfVersion(model, version);
  if (!refuses) return;
  const detail = `Version ${version} is out of service. It is tried again by itself; accepted work waits.`;
  const retryAfterSeconds = Math.max(1, Math.ceil(((retryAt ?? 0) - clock.now()) / 1000));
  throw new ServiceError("breaker_open", detail, { retryAfterSeconds });
}

/**
 * As `assertCapacity`, but lets pass what is no new work: what was accepted under the same key before and, where it is
 * the breaker that refuses, what can be joined to another one or answered from the cache.
 */
export async function assertCapacityFor(
  deps: NewWorkDependencies,
  model: KnownModel,
  version: string,
  { dedup, idempotencyKey, owner }: { owner: string; idempotencyKey: string | null; dedup: string | null },
): Promise<void> {
  try {
    assertCapacity(deps, owner, model, version);
  } catch (fault) {
    const { keys } = model;
    const known: string[] = [];
    if (idempotencyKey !== null) known.push(keys.idempotency(owner, idempotencyKey));
    // An answer from the cache is kept for the result time, for which there must be room.
    if (dedup !== null && (fault as ServiceError).code === "breaker_open") known.push(keys.dedup(dedup));
    if (known.length > 0 && (await deps.redis.exists(...known)) > 0) return;
    throw fault;
  }
}
