import { createHash } from "node:crypto";
import { z } from "zod";

/**
 * The split of submissions without a version. Weights are shares of their sum; null: the highest version that a living
 * worker serves gets all of them. Shadow versions run on the same inputs only for comparison.
 */
export const trafficSchema = z.object({
  weights: z.record(z.string(), z.number()).nullable(),
  shadow: z.array(z.string()),
});

export type Traffic = z.infer<typeof trafficSchema>;

export const automaticTraffic: Traffic = { weights: null, shadow: [] };

/** The split as it is stored; `announce.lua` writes one, too. */
export const encodeTraffic = ({ shadow, weights }: Traffic): string => JSON.stringify({ weights, shadow });

/** The split of a stored text; automatic without one. */
export const decodeTraffic = (text: string | null): Traffic =>
  text === null ? automaticTraffic : trafficSchema.parse(JSON.parse(text));

/**
 * The version for a key: the same key gets the same version while the split stays, and a changed split moves as few
 * keys as possible. Only candidates with a weight count; null where there are none.
 */
export function versionByWeight(
  weights: Readonly<Record<string, number>>,
  candidates: readonly string[],
  key: () => string,
): string | null {
  const weighted = candidates.filter((version) => (weights[version] ?? 0) > 0).sort((a, b) => Number(a) - Number(b));
  if (weighted.length <= 1) return weighted[0] ?? null;
  const sum = weighted.reduce((total, version) => total + (weights[version] as number), 0);
  const point = createHash("sha256").update(key()).digest().readUInt32BE(0) / 2 ** 32;
  let reached = 0;
  for (const version of weighted) {
    reached += (weights[version] as number) / sum;
    if (point < reached) return version;
  }
  return weighted.at(-1) as string;
}
