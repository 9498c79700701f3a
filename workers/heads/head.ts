import type { Tensor } from "onnxruntime-node";

/**
 * An output as the contract's JSON, the confidence of a classifier (else NaN), and the tensors as a pack where they are
 * wanted; or a sentence why there is none.
 */
export type HeadOutput = { json: string; confidence: number; pack?: Buffer } | string;

export type Outputs = Readonly<Record<string, Tensor>>;

/** Makes an answer of a run's outputs. */
export interface Head {
  /** Reads rows [from, to) of a run's outputs; null stands for all of them. */
  read(outputs: Outputs, range: readonly [number, number] | null): HeadOutput;
  /**
   * Why no answer can ever be made of outputs like these, which are of one row: their shapes or types, or that they are
   * not what the head takes them for, with the remedy. Null where nothing is wrong.
   */
  fault(outputs: Outputs): string | null;
}
