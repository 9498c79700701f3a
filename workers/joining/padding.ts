import type { PackedTensor } from "@millrace/shared/tensors/tensor-pack.js";

/** Fills texts up to the longest of a run, under a mask that tells the model what is text. */
export interface Padding {
  /** Where it is added. */
  side: "left" | "right";
  /** Tokens of a prepared input. */
  lengthOf(input: readonly PackedTensor[]): number;
  /** The same input with as many tokens, which are no fewer. */
  widen(input: readonly PackedTensor[], tokens: number): PackedTensor[];
}
