import { z } from "zod";
import { digestOf } from "../redis/digest.js";

const spread = z
  .strictObject({
    edges: z.array(z.number()).min(1).max(99).describe("Upper ends of all bins but the last, ascending"),
    shares: z.array(z.number().min(0).max(1)).min(2).max(100).describe("Share of the training inputs in each bin"),
  })
  .superRefine(({ edges, shares }, context) => {
    const complain = (path: string, message: string) => context.addIssue({ code: "custom", path: [path], message });
    if (shares.length !== edges.length + 1) complain("shares", `must have ${edges.length + 1} entries`);
    if (edges.some((edge, i) => i > 0 && edge <= (edges[i - 1] as number))) complain("edges", "must ascend");
    const sum = shares.reduce((total, share) => total + share, 0);
    if (Math.abs(sum - 1) > 0.01) complain("shares", `must add up to 1, not to ${sum}`);
  });

/** Distribution of the training inputs by feature, the baseline for drift. */
export const driftBaselineSchema = z
  .record(z.string(), spread)
  .describe("Distribution of each feature in training, the baseline for drift");

export type DriftBaseline = z.infer<typeof driftBaselineSchema>;

/** Window of inputs that count, in hours, and the fewest inputs for an index. */
export const driftHours = 6;
export const fewestInputs = 200;
const smallestShare = 1e-4;

/** Identifies a baseline, so that counts against different ones are kept apart. */
export const baselineId = (baseline: DriftBaseline): string => digestOf(JSON.stringify(baseline)).slice(0, 6);

/** A field of the hash `keys.drift`: inputs of a version, held against a baseline, by feature and bin. */
export const driftField = (version: string, baseline: string, feature: string, bin: number): string =>
  `${version}|${baseline}|${bin}|${feature}`;

/** The bin that a value falls into. */
export function binOf(edges: readonly number[], value: number): number {
  let low = 0;
  let high = edges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (value <= (edges[middle] as number)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * The population stability index of counts against shares: below 0.1 no drift, above 0.25 a different population.
 * Empty bins count as a ten-thousandth.
 */
export function populationStabilityIndex(shares: readonly number[], counts: readonly number[]): number {
  const sum = counts.reduce((total, count) => total + count, 0);
  return shares.reduce((psi, share, bin) => {
    const expected = Math.max(smallestShare, share);
    const actual = Math.max(smallestShare, (counts[bin] ?? 0) / sum);
    return psi + (actual - expected) * Math.log(actual / expected);
  }, 0);
}
