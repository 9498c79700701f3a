import type { Tensor } from "onnxruntime-node";

/**
 * An output as the contract's JSON, a classifier's confidence (else NaN), and the tensors as a pack on request; or a
 * sentence why there is none.
 */
export type HeadOutput = { json: string; confidence: number; pack?: Buffer } | string;

export type Outputs = Readonly<Record<string, Tensor>>;

/** Reads predictions from a run's outputs. */
export interface Head {
  /** Reads rows [from, to) of a run's outputs; null stands for all of them. */
  read(outputs: Outputs, range: readonly [number, number] | null): HeadOutput;
  /**
   * Why outputs like these, of one row, can never be read: a wrong shape or dtype, or values that contradict the head,
   * with the remedy. Null where nothing is wrong.
   */
  fault(outputs: Outputs): string | null;
}
