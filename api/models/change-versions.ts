import { setTimeout as delay } from "node:timers/promises";
import { isModelName } from "@millrace/shared/models/manifest.js";
import type { VersionReport } from "@millrace/shared/models/model-order.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { retireVersion } from "@millrace/shared/scripts/models/announce.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { KnownModel, ModelDirectory } from "./model-directory.js";
import { type OrderOutcome, requestRescan } from "./order-models.js";

export interface ChangeDependencies {
  directory: ModelDirectory;
  redis: RedisClient;
  keyPrefix: string;
  clock: Clock;
}

/** Deadline of an answer that waits for workers that still load. */
const orderDeadlineMs = 30_000;

const drainLookMs = 200;

/** What workers told of an order, and whether one serves what was asked for. */
export interface LoadOutcome {
  outcome: OrderOutcome;
  ready: boolean;
}

/**
 * Has workers load a version, or all of a model, that was unloaded or is new in their folders. Throws `state_conflict`
 * with the reasons where no worker can load it, `model_not_found` and `version_not_found` where none has a folder.
 */
export async function loadVersions(
  { clock, directory, keyPrefix, redis }: ChangeDependencies,
  name: string,
  version: string | undefined,
): Promise<LoadOutcome> {
  if (!isModelName(name)) {
    const detail = "Not a valid model name: 1 to 64 lower-case letters, digits, '.', '_' and '-'.";
    throw new ServiceError("model_not_found", detail);
  }
  const { unloaded } = modelKeys(keyPrefix, name);
  const again = version === undefined ? await redis.smembers(unloaded) : [version];
  if (again.length > 0) await redis.srem(unloaded, ...again);
  const deadline = performance.now() + orderDeadlineMs;
  const order = () => requestRescan(redis, keyPrefix, name, Math.max(0, deadline - performance.now()), clock);
  const isReady = (one: OrderOutcome) => again.every((name) => statesOf(one).some(isOf(name, "ready")));
  const drains = (one: OrderOutcome) => again.some((name) => statesOf(one).some(isOf(name, "draining")));
  let outcome = await order();
  // One that was unloaded just now must have drained on every worker; the order after that loads it anew.
  for (let isLast = false; !isLast && !isReady(outcome) && performance.now() < deadline; ) {
    isLast = !drains(outcome);
    if (!isLast) await delay(drainLookMs);
    outcome = await order();
  }
  const states = statesOf(outcome).filter((state) => version === undefined || state.version === version);
  const ready = states.some(({ state }) => state === "ready");
  if (!ready && outcome.unanswered === 0) {
    const reasons = [...new Set(states.map(({ reason }) => reason ?? "it is draining"))];
    if (reasons.length > 0)
      throw new ServiceError("state_conflict", `No worker can load the version: ${reasons.join("; ")}`);
    throw version === undefined
      ? new ServiceError("model_not_found", "No living worker has a folder of this model.")
      : new ServiceError("version_not_found", "No living worker has a folder of this version.");
  }
  await directory.look(name);
  return { outcome, ready };
}

/** Takes versions of a model away from all workers, which finish what they have begun. */
export async function unloadVersions(
  { clock, directory, keyPrefix, redis }: ChangeDependencies,
  model: KnownModel,
  versions: readonly string[],
): Promise<OrderOutcome> {
  if (versions.length > 0) await redis.sadd(model.keys.unloaded, ...versions);
  const outcome = await requestRescan(redis, keyPrefix, model.name, orderDeadlineMs, clock);
  for (const version of versions) {
    const left = statesOf(outcome).some((state) => state.version === version && state.state !== "refused");
    // Workers that have it let it drain and then take it back themselves.
    if (left || outcome.unanswered > 0) continue;
    await retireVersion(redis, keyPrefix, model.keys, { model: model.name, version, nowMs: clock.now() });
  }
  await directory.look(model.name);
  return outcome;
}

const isOf = (name: string, wanted: VersionReport["state"]) => (report: VersionReport) =>
  report.version === name && report.state === wanted;

const statesOf = ({ reports }: OrderOutcome): VersionReport[] => [...reports.values()].flat();
