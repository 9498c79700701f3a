import type { PackedTensor } from "@millrace/shared/tensors/tensor-pack.js";

/** Pads texts to the longest of a run, under a mask that separates text from padding. */
export interface Padding {
  /** The side of the padding. */
  side: "left" | "right";
  /** Number of tokens of a prepared input. */
  lengthOf(input: readonly PackedTensor[]): number;
  /** The same input padded to `tokens` tokens, at least as many as it has. */
  widen(input: readonly PackedTensor[], tokens: number): PackedTensor[];
}
