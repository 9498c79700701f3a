import type { PackedTensor } from "@millrace/shared/tensor-pack.js";
import type { Padding } from "../joining/padding.js";

/** One input of a run, and whether its output is wanted as a pack. */
export interface Input {
  tensors: readonly PackedTensor[];
  packed: boolean;
  /** Tokens before it was padded; null where it was not. */
  ownLength: number | null;
}

/** Texts of different lengths in one run: how they are padded, and where their outputs are cut. */
export interface PaddedRuns {
  padding: Padding;
  tokenAxes: ReadonlyMap<string, readonly number[]>;
}

/** Which inputs share a run, by their places: those whose rows have the same shape, once texts are padded. */
export function groupInputs(inputs: readonly Input[], padded: PaddedRuns | null): number[][] {
  if (padded !== null) pad(inputs, padded.padding);
  const groups: number[][] = [];
  for (const [i, { tensors }] of inputs.entries()) {
    const own = isJoinableAtAll(tensors)
      ? groups.find(([first]) => isJoinable((inputs[first as number] as Input).tensors, tensors))
      : undefined;
    if (own === undefined) groups.push([i]);
    else own.push(i);
  }
  return groups;
}

/** Makes texts equally long, each noting how long it was; tensors that came as such stay as they are. */
function pad(inputs: readonly Input[], padding: Padding): void {
  const texts = inputs.filter(({ packed }) => !packed);
  const longest = Math.max(...texts.map(({ tensors }) => padding.lengthOf(tensors)));
  for (const input of texts) {
    const length = padding.lengthOf(input.tensors);
    if (length === longest) continue;
    input.ownLength = length;
    input.tensors = padding.widen(input.tensors, longest);
  }
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
