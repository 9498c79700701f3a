import { versionByWeight } from "@millrace/shared/models/traffic.js";
import { digestOf } from "@millrace/shared/redis/digest.js";
import {
  breakerOfVersion,
  type KnownModel,
  type KnownVersion,
  type ModelDirectory,
  versionOf,
} from "../models/model-directory.js";

/**
 * The version that a submission gets: the one it names, else by the model's traffic split. The same key gets the same
 * version while the split and the living versions stay; a weighted version that no living worker serves, or that dies
 * on all of them, is left aside as long as there is another. Throws `version_not_found`, for a named version after
 * another look.
 */
export async function versionFor(
  directory: ModelDirectory,
  model: KnownModel,
  named: string | undefined,
  stickyKey: () => string,
): Promise<{ name: string; version: KnownVersion }> {
  const name = named ?? chooseVersion(model, stickyKey);
  return { name, version: versionOf(await directory.withVersion(model, name), name) };
}

/** The version of the split for a key; "" where no version is left. */
export function chooseVersion(model: KnownModel, stickyKey: () => string): string {
  const { highestVersion, name, traffic, versions, workers } = model;
  if (traffic.weights === null) return highestVersion;
  const known = [...versions.keys()].filter((version) => (traffic.weights?.[version] ?? 0) > 0);
  const alive = known.filter((version) => workers.has(version));
  const well = alive.filter((version) => !breakerOfVersion(model, version).refuses);
  const candidates = well.length > 0 ? well : alive.length > 0 ? alive : known;
  return versionByWeight(traffic.weights, candidates, () => `${name}|${stickyKey()}`) ?? highestVersion;
}

/** Key that a caller's repeated submissions share: their idempotency key, else the input itself. */
export const stickyKeyOf = (owner: string, idempotencyKey: string | null, input: unknown): string =>
  idempotencyKey === null
    ? `input|${input instanceof Uint8Array ? digestOf(input) : JSON.stringify(input)}`
    : `key|${owner}|${idempotencyKey}`;
