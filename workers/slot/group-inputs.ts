import type { PackedTensor } from "@millrace/shared/tensors/tensor-pack.js";
import type { Padding } from "../joining/padding.js";

/** One input of a run, and whether its output is wanted as a pack. */
export interface Input {
  tensors: readonly PackedTensor[];
  packed: boolean;
}

/** Texts of different lengths in one run: how they are padded, and where their outputs are cut. */
export interface PaddedRuns {
  padding: Padding;
  tokenAxes: ReadonlyMap<string, readonly number[]>;
}

/** Which inputs share a run, by their places: those whose rows have the same shape, or have once they are padded. */
export function groupInputs(inputs: readonly Input[], padding: Padding | null): number[][] {
  const groups: number[][] = [];
  for (const [i, input] of inputs.entries()) {
    const own = isJoinableAtAll(input.tensors)
      ? groups.find(([first]) => mayShare(inputs[first as number] as Input, input, padding))
      : undefined;
    if (own === undefined) groups.push([i]);
    else own.push(i);
  }
  return groups;
}

function mayShare(first: Input, input: Input, padding: Padding | null): boolean {
  const areTexts = padding !== null && !first.packed && !input.packed;
  return areTexts ? isJoinableAtAll(first.tensors) : isJoinable(first.tensors, input.tensors);
}

/** What inputs of one run are fed as: texts as long as the longest of these, and all else as it is. */
export function fedTogether(part: readonly Input[], padding: Padding | null): (readonly PackedTensor[])[] {
  if (padding === null || part.length === 1 || part[0]?.packed) return part.map(({ tensors }) => tensors);
  const longest = Math.max(...part.map(({ tensors }) => padding.lengthOf(tensors)));
  return part.map(({ tensors }) => (padding.lengthOf(tensors) === longest ? tensors : padding.widen(tensors, longest)));
}

/**
 * Whether all tensors of an input have the same rows, so that each row of it is one of the run, and none is empty:
 * that is what the proof that rows are kept apart rests on.
 */
function isJoinableAtAll(tensors: readonly PackedTensor[]): boolean {
  const rows = tensors[0]?.shape[0];
  return tensors.every(({ shape }) => shape[0] === rows && shape.every((length) => length > 0));
}

/** Whether two inputs are of the same tensors, which differ in their number of rows at the most. */
function isJoinable(a: readonly PackedTensor[], b: readonly PackedTensor[]): boolean {
  if (!isJoinableAtAll(a)) return false;
  return a.every(({ dtype, name, shape }, t) => {
    const other = b[t];
    if (other?.name !== name || other.dtype !== dtype || other.shape.length !== shape.length) return false;
    return shape.every((length, d) => d === 0 || length === other.shape[d]);
  });
}
