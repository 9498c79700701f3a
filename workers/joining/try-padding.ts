import { rowsOf } from "@millrace/shared/packing/pack-tensors.js";
import { distance, elementsOf, magnitudeOf, tolerance } from "./compare-tensors.js";
import { cutRows } from "./cut-rows.js";
import type { TriedInput } from "./make-inputs.js";
import type { Padding } from "./padding.js";
import type { Run } from "./try-joining.js";

/**
 * Whether texts have the same outputs alone as padded to the longest of a run and cut again. Only a run shows whether a
 * model heeds its mask; false where no text can be run.
 */
export async function isPaddingUnseen(options: {
  inputs: readonly TriedInput[];
  padding: Padding;
  tokenAxes: ReadonlyMap<string, readonly number[]>;
  run: Run;
}): Promise<boolean> {
  const { inputs, padding, run, tokenAxes } = options;
  try {
    const alone = [];
    for (const { tensors } of inputs) alone.push({ tensors, outputs: await run([tensors]) });
    const longest = Math.max(...inputs.map(({ tensors }) => padding.lengthOf(tensors)));
    const together = await run(inputs.map(({ tensors }) => padding.widen(tensors, longest)));
    const scales = new Map<string, number>();
    for (const { outputs } of alone) {
      for (const [name, tensor] of Object.entries(outputs)) {
        scales.set(name, Math.max(scales.get(name) ?? 0, magnitudeOf(elementsOf(tensor, null))));
      }
    }
    let from = 0;
    for (const { outputs, tensors } of alone) {
      const to = from + rowsOf(tensors);
      const length = padding.lengthOf(tensors);
      const cut = cutRows(together, [from, to], { axesByOutput: tokenAxes, length, padded: padding.side });
      for (const [name, tensor] of Object.entries(outputs)) {
        const apart = distance(elementsOf(tensor, null), elementsOf(cut[name] as typeof tensor, null));
        if (!(apart <= tolerance * (scales.get(name) ?? 0))) return false;
      }
      from = to;
    }
    return inputs.length > 1;
  } catch {
    // Texts that run alone but not together must not be joined.
    return false;
  }
}
