import { createHash } from "node:crypto";
import { z } from "zod";

/**
 * How submissions that name no version are split. Weights are shares of their sum; null: the highest version that a
 * living worker serves gets them all. Shadow versions run on the same inputs for comparison only.
 */
export const trafficSchema = z.object({
  weights: z.record(z.string(), z.number()).nullable(),
  shadow: z.array(z.string()),
});

export type Traffic = z.infer<typeof trafficSchema>;

export const automaticTraffic: Traffic = { weights: null, shadow: [] };

/** The split as it is stored; `announce.lua` writes one, too. */
export const encodeTraffic = ({ shadow, weights }: Traffic): string => JSON.stringify({ weights, shadow });

/** The split that a stored text stands for; automatic for none. */
export const decodeTraffic = (text: string | null): Traffic =>
  text === null ? automaticTraffic : trafficSchema.parse(JSON.parse(text));

/**
 * The version for what `key` is the same for, so that the same caller or input gets the same one while the split stays,
 * and a changed split moves no more than it must. Only candidates with a weight count; null where there are none.
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
