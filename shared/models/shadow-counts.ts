/**
 * The outcome of a shadow run beside the caller's: `agree`, `differ`; `failed`: the run failed or timed out; `dropped`:
 * it was not run, because too many waited.
 */
export const shadowOutcomes = ["agree", "differ", "failed", "dropped"] as const;

export type ShadowOutcome = (typeof shadowOutcomes)[number];

/** A field of the hash `keys.shadows`: a count of outcomes, or the sum of the score differences of those compared. */
export const shadowField = (version: string, shadow: string, what: ShadowOutcome | "difference"): string =>
  `${version}|${shadow}|${what}`;

/** Lifetime of the counts after the last one. */
export const shadowsKeptSeconds = 30 * 86_400;

/** Counts of one shadow version beside another version. */
export interface ShadowSummary {
  version: string;
  shadow: string;
  counts: Record<ShadowOutcome, number>;
  /** Share of compared runs that agreed, and mean of their largest differences; null without any. */
  agreement: number | null;
  scoreDifference: number | null;
}

/** Reads the hash `keys.shadows`. */
export function summarizeShadows(fields: Readonly<Record<string, string>>): ShadowSummary[] {
  const pairs = [...new Set(Object.keys(fields).map((field) => field.slice(0, field.lastIndexOf("|"))))].sort();
  return pairs.map((pair) => {
    const [version = "", shadow = ""] = pair.split("|");
    const read = (what: string) => Number(fields[`${pair}|${what}`] ?? 0);
    const counts = Object.fromEntries(
      shadowOutcomes.map((outcome) => [outcome, read(outcome)]),
    ) as ShadowSummary["counts"];
    const compared = counts.agree + counts.differ;
    return {
      version,
      shadow,
      counts,
      agreement: compared === 0 ? null : counts.agree / compared,
      scoreDifference: compared === 0 ? null : read("difference") / compared,
    };
  });
}
