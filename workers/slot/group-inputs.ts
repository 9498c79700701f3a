import type { PackedTensor } from "@millrace/shared/tensors/tensor-pack.js";
import type { Padding } from "../joining/padding.js";

/** One input of a run; `pack` asks for its output as packed tensors. */
export interface Input {
  tensors: readonly PackedTensor[];
  packed: boolean;
}

/** Texts of different lengths in one run: their padding, and the token axes of the outputs. */
export interface PaddedRuns {
  padding: Padding;
  tokenAxes: ReadonlyMap<string, readonly number[]>;
}

/**
 * Groups inputs into runs, by their places: inputs of one run have rows of the same shape, if need be after padding.
 */
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

/** The tensors fed for the inputs of one run: texts padded to the longest among them, other kinds unchanged. */
export function fedTogether(part: readonly Input[], padding: Padding | null): (readonly PackedTensor[])[] {
  if (padding === null || part.length === 1 || part[0]?.packed) return part.map(({ tensors }) => tensors);
  const longest = Math.max(...part.map(({ tensors }) => padding.lengthOf(tensors)));
  return part.map(({ tensors }) => (padding.lengthOf(tensors) === longest ? tensors : padding.widen(tensors, longest)));
}

/**
 * Whether all tensors of an input have the same number of rows, above zero. The proof that rows are kept apart rests on
 * it: each row of the input is one row of the run.
 */
function isJoinableAtAll(tensors: readonly PackedTensor[]): boolean {
  const rows = tensors[0]?.shape[0];
  return tensors.every(({ shape }) => shape[0] === rows && shape.every((length) => length > 0));
}

/** Whether two inputs have the same tensors, apart from the number of rows. */
function isJoinable(a: readonly PackedTensor[], b: readonly PackedTensor[]): boolean {
  if (!isJoinableAtAll(a)) return false;
  return a.every(({ dtype, name, shape }, t) => {
    const other = b[t];
    if (other?.name !== name || other.dtype !== dtype || other.shape.length !== shape.length) return false;
    return shape.every((length, d) => d === 0 || length === other.shape[d]);
  });
}
