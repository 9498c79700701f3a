import type { Manifest } from "@millrace/shared/models/manifest.js";
import { packerOf } from "@millrace/shared/packing/pack-input.js";
import type { RunItem } from "../runs/frames.js";
import type { Engine } from "./engine.js";

const tolerance = 1e-4;

/**
 * Warms a model up on its samples and compares the outputs with those expected by the manifest: texts equal, numbers
 * within 1e-4 (absolute, and relative above 1). Throws at the first difference.
 */
export async function checkSamples(
  samples: Manifest["samples"],
  packs: readonly Buffer[],
  run: (pack: Buffer) => Promise<RunItem[]>,
): Promise<void> {
  for (const [i, sample] of samples.entries()) {
    const what = `sample ${sample.name === undefined ? i : `"${sample.name}"`}`;
    const [item] = await run(packs[i] as Buffer);
    if (!item?.ok) throw new Error(`${what} fails: ${item?.text}`);
    const difference = sample.expected === undefined ? null : differs(sample.expected, JSON.parse(item.text), "");
    if (difference !== null) throw new Error(`${what} differs from the expected output: ${difference}`);
  }
}

/** The samples as packed inputs. Throws for an invalid one. */
export function packSamples(manifest: Manifest, { inputs }: Pick<Engine, "inputs">): Buffer[] {
  const packer = packerOf({ manifest, inputs });
  return manifest.samples.map((sample, i) => {
    const packed = packer(sample.input);
    if ("pack" in packed) return packed.pack;
    const [first] = packed.complaints;
    throw new Error(`sample ${sample.name ?? i} is not a valid input: ${first?.detail}`);
  });
}

/**
 * The first difference of `actual` from `expected`, with its pointer; null without one. Members only in `actual` are
 * ignored.
 */
function differs(expected: unknown, actual: unknown, pointer: string): string | null {
  if (typeof expected === "number" && typeof actual === "number") {
    const close = Math.abs(expected - actual) <= tolerance * Math.max(1, Math.abs(expected));
    return close ? null : `${pointer} is ${actual}, expected ${expected}`;
  }
  if (typeof expected === "object" && expected !== null && typeof actual === "object" && actual !== null) {
    if (Array.isArray(expected) && expected.length !== (actual as unknown[]).length)
      return `${pointer} has another length`;
    for (const [key, value] of Object.entries(expected)) {
      const difference = differs(value, (actual as Record<string, unknown>)[key], `${pointer}/${key}`);
      if (difference !== null) return difference;
    }
    return null;
  }
  return expected === actual ? null : `${pointer} is ${JSON.stringify(actual)}, expected ${JSON.stringify(expected)}`;
}
