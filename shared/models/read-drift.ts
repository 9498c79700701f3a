import type { RedisClient } from "../redis/connect-redis.js";
import type { ModelKeys } from "../redis/keys.js";
import {
  baselineId,
  type DriftBaseline,
  driftField,
  driftHours,
  fewestInputs,
  populationStabilityIndex,
} from "./drift.js";

/** Drift of a version's inputs over all workers, by feature with enough inputs. */
export interface Drift {
  inputs: number;
  psi: Record<string, number> | null;
}

/** Reads the counts of the last hours' inputs of a version and compares them with its baseline. */
export async function readDrift(
  redis: RedisClient,
  keys: ModelKeys,
  version: string,
  baseline: DriftBaseline,
  nowMs: number,
): Promise<Drift> {
  const hour = Math.floor(nowMs / 3_600_000);
  const id = baselineId(baseline);
  const hashes = await Promise.all(Array.from({ length: driftHours }, (_, i) => redis.hgetall(keys.drift(hour - i))));
  const counts = (feature: string, bins: number) =>
    Array.from({ length: bins }, (_, bin) =>
      hashes.reduce((sum, hash) => sum + Number(hash[driftField(version, id, feature, bin)] ?? 0), 0),
    );
  let inputs = 0;
  const psi: Record<string, number> = {};
  for (const [feature, { shares }] of Object.entries(baseline)) {
    const counted = counts(feature, shares.length);
    inputs = Math.max(
      inputs,
      counted.reduce((sum, count) => sum + count, 0),
    );
    if (inputs >= fewestInputs) psi[feature] = populationStabilityIndex(shares, counted);
  }
  return { inputs, psi: inputs >= fewestInputs ? psi : null };
}
