import type { PackedTensor } from "@millrace/shared/tensors/tensor-pack.js";
import type { Padding } from "../joining/padding.js";

/** An input found invalid only by its preparation: an undecodable image, a text without any token. */
export class InputRefusedError extends Error {}

/** Prepares an input in the slot before the model runs; too heavy for a process that also talks to Redis. */
export interface Preparation {
  /**
   * Whether the inputs of a run are prepared concurrently: true where other threads do the work and it takes little
   * memory.
   */
  readonly atOnce?: boolean;
  /** The tensors fed to the ONNX file. Rejects with an InputRefusedError. */
  prepare(packed: PackedTensor[]): PackedTensor[] | Promise<PackedTensor[]>;
  /** Padding of inputs of different lengths; null where the model would see the padding. */
  padding: Padding | null;
}
