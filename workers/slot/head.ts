import type { Tensor } from "onnxruntime-node";

/**
 * An output as the contract's JSON, the confidence of a classifier (else NaN), and the tensors as a pack where they are
 * wanted; or a sentence why there is none.
 */
export type HeadOutput = { json: string; confidence: number; pack?: Buffer } | string;

/** Reads rows [from, to) of a run's outputs; null stands for all of them. */
export type Head = (outputs: Readonly<Record<string, Tensor>>, range: readonly [number, number] | null) => HeadOutput;
