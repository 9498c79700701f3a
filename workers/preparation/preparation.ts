import type { PackedTensor } from "@millrace/shared/tensors/tensor-pack.js";
import type { Padding } from "../joining/padding.js";

/** An input that only its preparation showed to be none: an image that cannot be decoded, a text without any token. */
export class InputRefusedError extends Error {}

/** What is done to an input in the slot before the model runs it; too heavy for a process that also talks to Redis. */
export interface Preparation {
  /** Whether the inputs of a run are prepared at once: where that is done in other threads, and takes little memory. */
  readonly atOnce?: boolean;
  /** The tensors that the ONNX file takes. Rejects with an InputRefusedError. */
  prepare(packed: PackedTensor[]): PackedTensor[] | Promise<PackedTensor[]>;
  /** How inputs of different lengths are made alike; null where they cannot be without the model seeing it. */
  padding: Padding | null;
}
