/** The comparison of two outputs: whether they agree, and the largest difference of a number. */
export interface Comparison {
  agrees: boolean;
  difference: number;
}

const tolerance = 1e-4;

/**
 * Compares two outputs of one input. Outputs with labels, flags or texts agree when these are equal, whatever their
 * numbers. Outputs with only numbers agree when each is within 1e-4 (absolute, and relative above 1).
 */
export function compareOutputs(outputJson: string, otherJson: string): Comparison {
  const leaves = { discrete: 0, same: true, close: true, difference: 0 };
  walk(JSON.parse(outputJson), JSON.parse(otherJson), leaves);
  const agrees = leaves.same && (leaves.discrete > 0 || leaves.close);
  return { agrees, difference: leaves.difference };
}

interface Leaves {
  discrete: number;
  same: boolean;
  close: boolean;
  difference: number;
}

function walk(a: unknown, b: unknown, leaves: Leaves): void {
  if (typeof a === "number" && typeof b === "number") {
    const difference = Math.abs(a - b);
    leaves.difference = Math.max(leaves.difference, difference);
    if (!(difference <= tolerance * Math.max(1, Math.abs(a)))) leaves.close = false;
    return;
  }
  if (typeof a === "object" && a !== null && typeof b === "object" && b !== null) {
    const keys = Object.keys(a);
    if (Array.isArray(a) !== Array.isArray(b) || keys.length !== Object.keys(b).length) leaves.same = false;
    for (const key of keys) {
      if (!Object.hasOwn(b, key)) leaves.same = false;
      else walk((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key], leaves);
    }
    return;
  }
  leaves.discrete += 1;
  if (a !== b) leaves.same = false;
}
